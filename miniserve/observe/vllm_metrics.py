"""The same numbers under vLLM's names: other people's routers, dashboards and load generators look for exactly those.

An engine is one series, labelled as vLLM labels its data-parallel ranks; behind a gateway each replica is one, and its
counters may start anew without disturbing the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client import Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample as PrometheusSample

from miniserve.engine.stats import EngineStats

NamedEngine = tuple[str, str, EngineStats]  # model, engine, what it reports

_LABELS = ("model_name", "engine")
_GAUGES = {
    "num_requests_running": "Number of requests in model execution batches.",
    "num_requests_waiting": "Number of requests waiting to be processed.",
    "kv_cache_usage_perc": "KV-cache usage. 1 means 100 percent usage.",
}
_COUNTERS = {
    "prompt_tokens": "Number of prefill tokens processed.",
    "generation_tokens": "Number of generation tokens processed.",
    "prefix_cache_queries": "Prefix cache queries, in tokens.",
    "prefix_cache_hits": "Prefix cache hits, in tokens.",
    "num_preemptions": "Cumulative number of preemptions.",
}


def vllm_families(engines: Sequence[NamedEngine]) -> Iterator[Metric]:
    """Yield the families, each with a series per engine."""
    for name, text in _GAUGES.items():
        gauge = GaugeMetricFamily(f"vllm:{name}", text, labels=_LABELS)
        for model, engine, stats in engines:
            gauge.add_metric((model, engine), _gauges(stats)[name])
        yield gauge
    for name, text in _COUNTERS.items():
        counter = CounterMetricFamily(f"vllm:{name}", text, labels=_LABELS)
        for model, engine, stats in engines:
            counter.add_metric((model, engine), _counters(stats)[name])
        yield counter
    finished = CounterMetricFamily(
        "vllm:request_success", "Count of finished requests.", labels=(*_LABELS, "finished_reason")
    )
    info = InfoMetricFamily("vllm:cache_config", "Configuration of the KV cache.", labels=("engine",))
    for model, engine, stats in engines:
        for reason, count in stats.counters.finished.items():
            finished.add_metric((model, engine, reason), count)
        info.add_metric((engine,), {"block_size": str(stats.block_size), "num_gpu_blocks": str(stats.blocks_total)})
    yield finished
    yield info


def _gauges(stats: EngineStats) -> dict[str, float]:
    return {
        "num_requests_running": stats.running,
        "num_requests_waiting": stats.waiting,
        "kv_cache_usage_perc": stats.kv_used_fraction,
    }


def _counters(stats: EngineStats) -> dict[str, float]:
    counts = stats.counters
    return {
        "prompt_tokens": counts.prompt_tokens,
        "generation_tokens": counts.generated_tokens,
        "prefix_cache_queries": counts.prefix_query_tokens,
        "prefix_cache_hits": counts.prefix_hit_tokens,
        "num_preemptions": counts.preemptions,
    }


class RenamedHistograms(Collector):
    """Shows histograms once more, under other names and with a `model_name`."""

    def __init__(self, renamed: dict[str, Histogram], model_name: str) -> None:
        self._renamed = renamed
        self._model_name = model_name

    def describe(self) -> list[Metric]:
        """Announce nothing: the names are not among the registry's own."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield each histogram's buckets, count and sum as they are now."""
        for name, histogram in self._renamed.items():
            for metric in histogram.collect():
                alias = Metric(name, metric.documentation, "histogram")
                alias.samples = [self._sample(one, metric.name, name) for one in metric.samples]
                yield alias

    def _sample(self, one: PrometheusSample, old: str, new: str) -> PrometheusSample:
        labels = {**one.labels, "model_name": self._model_name}
        return one._replace(name=new + one.name.removeprefix(old), labels=labels)
