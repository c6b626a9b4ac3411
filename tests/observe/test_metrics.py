"""Metrics: clean names, true numbers, and the aliases that other people's routers look for."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from requirements_probe import require_program

from miniserve.engine.scheduler import Counters
from miniserve.engine.stats import EngineStats
from miniserve.observe.metrics import ApiMetrics, EngineCollector

COUNTERS = Counters(
    steps=100,
    prompt_tokens=500,
    generated_tokens=200,
    prefix_query_tokens=400,
    prefix_hit_tokens=160,
    recomputed_tokens=12,
    preemptions=1,
    yields=4,
    finished={"stop": 7, "length": 5},
)
STATS = EngineStats(
    COUNTERS,
    running=3,
    waiting=2,
    blocks_total=64,
    blocks_used=16,
    blocks_cached=8,
    block_size=16,
    tokens_per_s=12.5,
)


def registry_of(*, aliases: bool = False) -> CollectorRegistry:
    registry = CollectorRegistry()
    metrics = ApiMetrics(registry)
    metrics.record_exchange("/v1/completions", "POST", 200, 0.25)
    metrics.record_exchange("/v1/completions", "POST", None, 0.25)
    metrics.record_tokens(4, 0.008)
    metrics.finished.labels("stop").inc()
    registry.register(EngineCollector(lambda: STATS, model_name="tiny", vllm_aliases=aliases))
    return registry


def test_native_names_are_lint_clean() -> None:
    promtool = require_program("promtool")
    text = generate_latest(registry_of())
    assert text.count(b"# TYPE miniserve_") > 25
    result = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, timeout=60, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


def test_the_engines_numbers_are_copied_at_each_scrape() -> None:
    now = [STATS]
    registry = CollectorRegistry()
    registry.register(EngineCollector(lambda: now[0]))
    assert registry.get_sample_value("miniserve_engine_kv_used_ratio") == 0.25
    assert registry.get_sample_value("miniserve_engine_generated_tokens_total") == 200
    assert registry.get_sample_value("miniserve_engine_requests_finished_total", {"reason": "stop"}) == 7
    now[0] = replace(STATS, counters=replace(COUNTERS, generated_tokens=201), running=0)
    assert registry.get_sample_value("miniserve_engine_generated_tokens_total") == 201
    assert registry.get_sample_value("miniserve_engine_requests_running") == 0


def test_registering_does_not_ask_the_engine() -> None:
    def not_yet() -> EngineStats:
        raise AssertionError("asked before the first scrape")

    CollectorRegistry(auto_describe=True).register(EngineCollector(not_yet))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_requests_running", 3),
        ("num_requests_waiting", 2),
        ("kv_cache_usage_perc", 0.25),
        ("prompt_tokens_total", 500),
        ("generation_tokens_total", 200),
        ("prefix_cache_queries_total", 400),
        ("prefix_cache_hits_total", 160),
        ("num_preemptions_total", 1),
    ],
)
def test_aliases_for_routers(name: str, value: float) -> None:
    labels = {"model_name": "tiny", "engine": "0"}
    assert registry_of(aliases=True).get_sample_value(f"vllm:{name}", labels) == value
    assert registry_of().get_sample_value(f"vllm:{name}", labels) is None


def test_aliases_with_labels_of_their_own() -> None:
    registry = registry_of(aliases=True)
    labels = {"model_name": "tiny", "engine": "0", "finished_reason": "length"}
    assert registry.get_sample_value("vllm:request_success_total", labels) == 5
    info = {"engine": "0", "block_size": "16", "num_gpu_blocks": "64"}
    assert registry.get_sample_value("vllm:cache_config_info", info) == 1


def test_fast_decoding_has_buckets_to_be_seen_in() -> None:
    """Four tokens in 1.6 ms are 0.4 ms each, and the smallest bucket is for such."""
    registry = CollectorRegistry()
    ApiMetrics(registry).record_tokens(4, 0.0016)
    bucket = "miniserve_inter_token_latency_seconds_bucket"
    assert registry.get_sample_value(bucket, {"le": "0.0005"}) == 4
    assert registry.get_sample_value("miniserve_inter_token_latency_seconds_sum") == pytest.approx(0.0016)


def test_an_engine_without_blocks_is_not_a_division_by_zero() -> None:
    registry = CollectorRegistry()
    registry.register(EngineCollector(lambda: EngineStats(blocks_total=0, blocks_used=0)))
    assert registry.get_sample_value("miniserve_engine_kv_used_ratio") == 0
