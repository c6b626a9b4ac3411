"""Prometheus metrics: what the HTTP edge sees of each request, and what the engine reports about itself.

`ApiMetrics` is updated as requests pass. `EngineCollector` runs at each scrape and copies the engine's own counts, so
they are kept in one place. Native names start with `miniserve_` and pass `promtool check metrics`; the `vllm:*` aliases
exist because routers and load generators look for exactly those names.

Labels have few values by design (a route's template, never a path), because each combination is a time series.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from miniserve.engine.stats import EngineStats
from miniserve.observe.recent import Recent

# Three buckets per decade. A fast decode step takes well under a millisecond, so the inter-token buckets start there.
# vLLM's start at 10 ms, which makes the percentiles of such engines unreadable.
_INTER_TOKEN_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_FIRST_TOKEN_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
_DURATION_S = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)


class ApiMetrics:
    """The metrics of one HTTP edge. One per registry. `recent` keeps the last of them for a live table."""

    def __init__(self, registry: CollectorRegistry, recent: Recent | None = None) -> None:
        self.recent = Recent() if recent is None else recent
        self.in_flight = Gauge(
            "miniserve_http_requests_in_flight", "HTTP requests being answered now.", registry=registry
        )
        self.requests = Counter(
            "miniserve_http_requests_total",
            "HTTP requests by route, method and status; 499 is a client that left.",
            ("route", "method", "status"),
            registry=registry,
        )
        self.duration = Histogram(
            "miniserve_http_request_duration_seconds",
            "Time from a request's headers to the end of its answer.",
            ("route",),
            buckets=_DURATION_S,
            registry=registry,
        )
        self.time_to_first_token = Histogram(
            "miniserve_time_to_first_token_seconds",
            "Time from a request's headers to its first token.",
            buckets=_FIRST_TOKEN_S,
            registry=registry,
        )
        self.inter_token = Histogram(
            "miniserve_inter_token_latency_seconds",
            "Time between tokens; tokens that arrive together share their time equally.",
            buckets=_INTER_TOKEN_S,
            registry=registry,
        )
        self.prompt_tokens = Counter(
            "miniserve_prompt_tokens_total", "Prompt tokens of requests that were started.", registry=registry
        )
        self.completion_tokens = Counter(
            "miniserve_completion_tokens_total", "Tokens generated for clients.", registry=registry
        )
        self.discarded_tokens = Counter(
            "miniserve_cascade_discarded_tokens_total",
            "Tokens of a small model's answers that a cascade did not keep.",
            registry=registry,
        )
        self.degraded = Counter(
            "miniserve_degraded_generations_total",
            "Generations from which something was taken under overload.",
            ("measure",),
            registry=registry,
        )
        self.finished = Counter(
            "miniserve_generations_finished_total",
            "Generations by how they ended.",
            ("reason",),
            registry=registry,
        )

    def record_exchange(self, route: str, method: str, status: int | None, duration_s: float) -> None:
        """Count one finished HTTP exchange. `status` None: it ended without an answer."""
        self.requests.labels(route, method, str(status or "none")).inc()
        self.duration.labels(route).observe(duration_s)

    def begin_generation(self, prompt_tokens: int) -> None:
        """Count a generation that begins."""
        self.prompt_tokens.inc(prompt_tokens)
        self.recent.begin()

    def record_first_token(self, ttft_s: float) -> None:
        """Count how long a generation's first token took."""
        self.time_to_first_token.observe(ttft_s)
        self.recent.ttft_s.add(ttft_s)

    def count_tokens(self, count: int, now_s: float) -> None:
        """Count tokens that are sent to a client."""
        self.completion_tokens.inc(count)
        self.recent.add_tokens(count, now_s)

    def end_generation(self, reason: str) -> None:
        """Count a generation that is over; "error" is one that failed."""
        self.finished.labels(reason).inc()
        self.recent.end(failed=reason == "error")

    def record_tokens(self, count: int, gap_s: float) -> None:
        """Count `count` tokens that arrived together, `gap_s` after the previous ones."""
        for _ in range(count):
            self.inter_token.observe(gap_s / count)


class EngineCollector(Collector):
    """Reads the engine's stats at each scrape: `registry.register(EngineCollector(engine.stats))` sets it up.

    `stats` is called in the scraping thread.
    """

    def __init__(self, stats: Callable[[], EngineStats], *, model_name: str = "", vllm_aliases: bool = False) -> None:
        self._stats = stats
        self._model_name = model_name
        self._vllm_aliases = vllm_aliases

    def describe(self) -> list[Metric]:
        """Announce nothing, so that registering does not query the engine."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield all families of one scrape, from one snapshot."""
        stats = self._stats()
        yield from _native(stats)
        if self._vllm_aliases:
            yield from _vllm(stats, self._model_name)


def _native(stats: EngineStats) -> Iterator[Metric]:
    gauges = {
        "requests_running": ("Requests in prefill or decode now.", stats.running),
        "requests_waiting": ("Requests in the engine's queue.", stats.waiting),
        "kv_blocks": ("Blocks of the KV pool.", stats.blocks_total),
        "kv_blocks_used": ("KV blocks that running requests hold.", stats.blocks_used),
        "kv_blocks_cached": ("Free KV blocks that still hold a reusable prefix.", stats.blocks_cached),
        "kv_block_size_tokens": ("Tokens in one KV block.", stats.block_size),
        "kv_used_ratio": ("Share of the KV pool that running requests hold.", stats.kv_used_fraction),
        "token_rate": ("Tokens generated in a recent second.", stats.tokens_per_s),
    }
    for name, (text, value) in gauges.items():
        yield GaugeMetricFamily(f"miniserve_engine_{name}", text, value=value)
    counts = stats.counters
    counters = {
        "steps": ("Engine steps.", counts.steps),
        "prompt_tokens": ("Prompt tokens of admitted requests.", counts.prompt_tokens),
        "generated_tokens": ("Tokens sampled.", counts.generated_tokens),
        "prefix_query_tokens": ("Prompt tokens looked up in the prefix cache.", counts.prefix_query_tokens),
        "prefix_hit_tokens": ("Prompt tokens found in the prefix cache.", counts.prefix_hit_tokens),
        "recomputed_tokens": ("Tokens computed again after a preemption.", counts.recomputed_tokens),
        "preemptions": ("Requests that lost their KV blocks to another.", counts.preemptions),
        "yields": ("Turns that long generations gave up to waiting requests.", counts.yields),
    }
    for name, (text, value) in counters.items():
        yield CounterMetricFamily(f"miniserve_engine_{name}", text, value=value)
    yield _by_reason("miniserve_engine_requests_finished", "Requests by how they ended.", "reason", stats)


def _vllm(stats: EngineStats, model_name: str) -> Iterator[Metric]:
    names, values = ("model_name", "engine"), (model_name, "0")
    gauges = {
        "num_requests_running": ("Number of requests in model execution batches.", stats.running),
        "num_requests_waiting": ("Number of requests waiting to be processed.", stats.waiting),
        "kv_cache_usage_perc": ("KV-cache usage. 1 means 100 percent usage.", stats.kv_used_fraction),
    }
    for name, (text, value) in gauges.items():
        gauge = GaugeMetricFamily(f"vllm:{name}", text, labels=names)
        gauge.add_metric(values, value)
        yield gauge
    counts = stats.counters
    counters = {
        "prompt_tokens": ("Number of prefill tokens processed.", counts.prompt_tokens),
        "generation_tokens": ("Number of generation tokens processed.", counts.generated_tokens),
        "prefix_cache_queries": ("Prefix cache queries, in tokens.", counts.prefix_query_tokens),
        "prefix_cache_hits": ("Prefix cache hits, in tokens.", counts.prefix_hit_tokens),
        "num_preemptions": ("Cumulative number of preemptions.", counts.preemptions),
    }
    for name, (text, value) in counters.items():
        counter = CounterMetricFamily(f"vllm:{name}", text, labels=names)
        counter.add_metric(values, value)
        yield counter
    labels = dict(zip(names, values, strict=True))
    yield _by_reason("vllm:request_success", "Count of finished requests.", "finished_reason", stats, labels)
    info = InfoMetricFamily("vllm:cache_config", "Configuration of the KV cache.", labels=("engine",))
    info.add_metric(("0",), {"block_size": str(stats.block_size), "num_gpu_blocks": str(stats.blocks_total)})
    yield info


def _by_reason(
    name: str, text: str, label: str, stats: EngineStats, more: Mapping[str, str] | None = None
) -> CounterMetricFamily:
    more = more or {}
    counter = CounterMetricFamily(name, text, labels=(*more, label))
    for reason, count in stats.counters.finished.items():
        counter.add_metric((*more.values(), reason), count)
    return counter
