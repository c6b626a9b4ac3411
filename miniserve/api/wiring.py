"""Put the HTTP edge in front of a backend: the same API whether that is one engine or a fleet.

Torch-free. Knows how the parts are wired, and nothing about what they do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from miniserve.api.answered import OnCallEnd
from miniserve.api.app import create_app
from miniserve.api.backend import Backend, ServedModel
from miniserve.api.catalogue import Catalogue, ModelNames, catalogue_of, merged_versions
from miniserve.api.flagged import FlagLookup, no_flags
from miniserve.clock import monotonic
from miniserve.config import ApiConfig
from miniserve.engine.stats import EngineStats
from miniserve.errors import SetupError
from miniserve.models.tokenizer import Tokenizer
from miniserve.observe.metrics import ApiMetrics, EngineCollector
from miniserve.observe.recent import Recent
from miniserve.observe.vllm_metrics import RenamedHistograms


def served_model(name: str, folder: Path, max_model_len: int) -> ServedModel:
    """Return what the edge needs of the model in `folder`. Reads the tokenizer, no weights."""
    created = int((folder / "config.json").stat().st_mtime)  # all processes that serve the folder say the same
    tokenizer = Tokenizer.load(folder)
    return ServedModel(name, tokenizer, max_model_len, created, tokenizer.longest_token_bytes())


def served_catalogue(folders: Mapping[str, Path], lengths: Mapping[str, int], names: ModelNames) -> Catalogue:
    """Return the catalogue of the models in `folders`, each by the name that its replicas report: NAME or NAME@VERSION.

    `lengths` are their contexts. Raises: SetupError as `Catalogue`, and for versions with different tokenizers.
    """
    models: dict[str, dict[str, ServedModel]] = {}
    for reported, folder in folders.items():
        name, _, version = reported.partition("@")
        models.setdefault(name, {})[version] = served_model(name, folder, lengths[reported])
    return Catalogue([_with_versions(name, versions) for name, versions in models.items()], names)


def _with_versions(name: str, versions: Mapping[str, ServedModel]) -> ServedModel:
    if "" not in versions:
        return merged_versions(name, versions)
    if len(versions) > 1:
        raise SetupError(f"{name} is served with and without a version; give each of its folders one, as {name}@1")
    return versions[""]


def api_app(
    backend: Backend,
    model: ServedModel | Catalogue,
    *,
    config: ApiConfig,
    recent: Recent | None = None,
    engine_stats: Callable[[], EngineStats] | None = None,
    collectors: Sequence[Collector] = (),
    vllm_metrics: bool = False,
    on_answered: OnCallEnd | None = None,
    flags: FlagLookup = no_flags,
) -> FastAPI:
    """Return the OpenAI app in front of `backend`; `engine_stats` adds an engine's own metrics, `recent` counts along.

    `collectors` add a gateway's. `vllm_metrics` repeats them under vLLM's names, which other routers scrape.
    """
    registry, name = CollectorRegistry(), catalogue_of(model).default.name
    metrics = ApiMetrics(registry, recent)
    for collector in collectors:
        registry.register(collector)
    if vllm_metrics:
        registry.register(RenamedHistograms(metrics.vllm_histograms(), name))
    if engine_stats is not None:
        registry.register(EngineCollector(engine_stats, model_name=name, vllm_aliases=vllm_metrics))
    return create_app(
        backend,
        model,
        config=config,
        metrics=metrics,
        registry=registry,
        clock=monotonic,
        wall_clock=time.time,
        on_answered=on_answered,
        flags=flags,
    )
