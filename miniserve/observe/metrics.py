"""Prometheus metrics: what the HTTP edge sees of each request, and what the engine reports about itself.

`ApiMetrics` is updated as requests pass. `EngineCollector` runs at each scrape and copies the engine's own counts, so
they are kept in one place. Native names start with `miniserve_` and pass `promtool check metrics`; the `vllm:*` aliases
exist because routers and load generators look for exactly those names.

Labels have few values by design (a route's template, never a path), because each combination is a time series.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from miniserve.engine.stats import EngineStats
from miniserve.observe.recent import Recent
from miniserve.observe.traffic import Traffic
from miniserve.observe.vllm_metrics import vllm_families

# Three buckets per decade. A fast decode step takes well under a millisecond, so the inter-token buckets start there.
# vLLM's start at 10 ms, which makes the percentiles of such engines unreadable.
_INTER_TOKEN_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_FIRST_TOKEN_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
_DURATION_S = (
    0.0005,
    0.001,
    0.002,
    0.005,
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.5,
    1.0,
    2.0,
    5.0,
    10.0,
    20.0,
    50.0,
    100.0,
    200.0,
    500.0,
)


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
        self.end_to_end = Histogram(
            "miniserve_e2e_request_latency_seconds",
            "Time from a request's headers to its last token, of answers that were complete.",
            buckets=_DURATION_S,
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
        self.traffic = Traffic(registry)

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

    def end_generation(self, reason: str, e2e_s: float) -> None:
        """Count a generation that is over, `e2e_s` after its request came; "error" is one that failed."""
        self.finished.labels(reason).inc()
        self.recent.end(failed=reason == "error")
        if reason not in ("error", "abort"):  # a refusal is no fast answer
            self.end_to_end.observe(e2e_s)
            self.recent.e2e_s.add(e2e_s)

    def record_tokens(self, count: int, gap_s: float) -> None:
        """Count `count` tokens that arrived together, `gap_s` after the previous ones."""
        for _ in range(count):
            self.inter_token.observe(gap_s / count)
            self.recent.itl_s.add(gap_s / count)

    def vllm_histograms(self) -> dict[str, Histogram]:
        """Return the histograms that vLLM has too, under its names."""
        return {
            "vllm:time_to_first_token_seconds": self.time_to_first_token,
            "vllm:inter_token_latency_seconds": self.inter_token,
            "vllm:e2e_request_latency_seconds": self.end_to_end,
        }


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
            yield from vllm_families([(self._model_name, "0", stats)])


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
        "busy_seconds": ("Time spent in steps.", stats.busy_s),
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
    yield _by_reason(stats)


def _by_reason(stats: EngineStats) -> CounterMetricFamily:
    name, text = "miniserve_engine_requests_finished", "Requests by how they ended."
    counter = CounterMetricFamily(name, text, labels=("reason",))
    for reason, count in stats.counters.finished.items():
        counter.add_metric((reason,), count)
    return counter
