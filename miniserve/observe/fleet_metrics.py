"""Prometheus metrics of a gateway's replicas: what it sends them, how that fails, and how loaded they are.

Read at each scrape from the gateway's own counts and the replicas' last reports (`counts.ReplicaReading`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from miniserve.observe.counts import ReplicaReading
from miniserve.observe.vllm_metrics import vllm_families
from miniserve.types import ReplicaState


def _busy_s(one: ReplicaReading) -> float | None:
    return None if one.stats is None else one.stats.busy_s


_COUNTERS: dict[str, tuple[str, Callable[[ReplicaReading], float | None]]] = {
    "attempts": ("Attempts sent to the replica, all kinds together.", lambda one: one.counts.attempts),
    "retries": ("Attempts made after another had failed.", lambda one: one.counts.retries),
    "hedges": ("Attempts started beside another that was slow.", lambda one: one.counts.hedges),
    "resumed_streams": ("Attempts that went on after another's tokens.", lambda one: one.counts.resumed),
    "ejections": ("Times that the replica was ejected for its failures.", lambda one: one.ejections),
    "busy_seconds": ("Time spent in engine steps, since its start.", _busy_s),
    "restarts": ("Times that the replica's process was started again.", lambda one: one.restarts),
}
_GAUGES: dict[str, tuple[str, Callable[[ReplicaReading], float | None]]] = {
    "outstanding": ("Requests sent there that have not ended.", lambda one: one.view.outstanding),
    "queue_depth": ("Requests in the replica's own queue.", lambda one: one.view.queue_depth),
    "running": ("Requests in the replica's batch.", lambda one: one.view.running),
    "kv_used_ratio": ("Share of the KV pool that running requests hold.", lambda one: one.view.kv_used_fraction),
    "token_rate": ("Tokens generated in a recent second.", lambda one: one.view.tokens_per_s),
    "utilisation_ratio": ("Share of a recent time that the engine spent in steps.", lambda one: one.busy_fraction),
    "overrun_ratio": ("Share of a paced replica's steps over their pace.", lambda one: one.overrun_fraction),
    "weight": ("Relative share of the traffic it should get.", lambda one: one.view.weight),
}


class FleetCollector(Collector):
    """`registry.register(FleetCollector(read))`; `read` is called in the scraping thread."""

    def __init__(self, read: Callable[[], Sequence[ReplicaReading]], *, vllm_aliases: bool = False) -> None:
        self._read = read
        self._vllm_aliases = vllm_aliases

    def describe(self) -> list[Metric]:
        """Announce nothing, so that registering asks nobody."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield all families of one scrape, from one reading."""
        readings = self._read()
        yield from _counters(readings)
        yield from _gauges(readings)
        yield _states(readings)
        yield _cold_starts(readings)
        if self._vllm_aliases:
            reported = [(one.view.version, one.view.replica_id, one.stats) for one in readings if one.stats is not None]
            yield from vllm_families(reported)


def _counters(readings: Sequence[ReplicaReading]) -> Iterator[Metric]:
    for name, (text, read) in _COUNTERS.items():
        counter = CounterMetricFamily(f"miniserve_replica_{name}", text, labels=("replica",))
        for one in readings:
            if (value := read(one)) is not None:
                counter.add_metric((one.view.replica_id,), value)
        yield counter
    failures = CounterMetricFamily(
        "miniserve_replica_failures", "Attempts that failed, by kind of error.", labels=("replica", "kind")
    )
    for one in readings:
        for kind, count in one.counts.failures.items():
            failures.add_metric((one.view.replica_id, kind), count)
    yield failures


def _gauges(readings: Sequence[ReplicaReading]) -> Iterator[Metric]:
    for name, (text, read) in _GAUGES.items():
        gauge = GaugeMetricFamily(f"miniserve_replica_{name}", text, labels=("replica",))
        for one in readings:
            if (value := read(one)) is not None:
                gauge.add_metric((one.view.replica_id,), value)
        yield gauge


def _states(readings: Sequence[ReplicaReading]) -> Metric:
    text = "1 for the state that the replica is in, 0 for the others."
    gauge = GaugeMetricFamily("miniserve_replica_state", text, labels=("replica", "model", "state"))
    for one in readings:
        for state in ReplicaState:
            gauge.add_metric((one.view.replica_id, one.view.version, state.value), one.view.state is state)
    return gauge


def _cold_starts(readings: Sequence[ReplicaReading]) -> Metric:
    text = "How long the stages of the replica's last start took."
    gauge = GaugeMetricFamily("miniserve_replica_cold_start_seconds", text, labels=("replica", "stage"))
    for one in readings:
        for stage, seconds in one.cold_start_s.items():
            gauge.add_metric((one.view.replica_id, stage), seconds)
    return gauge
