"""Metrics: clean names, true numbers, and the aliases that other people's routers look for."""

from __future__ import annotations

import subprocess
from collections import Counter
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from requirements_probe import require_program

from miniserve.engine.scheduler import Counters
from miniserve.engine.stats import EngineStats
from miniserve.observe.counts import ReplicaCounts, ReplicaReading
from miniserve.observe.fleet_metrics import FleetCollector
from miniserve.observe.metrics import ApiMetrics, EngineCollector
from miniserve.observe.traffic import LONGEST_VALUE, MOST_VALUES, OTHER, BoundedLabel
from miniserve.types import ReplicaState, ReplicaView, Request

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

COUNTS = ReplicaCounts(attempts=9, retries=2, hedges=1, resumed=1, failures=Counter(unreachable=2, upstream_error=1))
READING = ReplicaReading(
    ReplicaView("r0", ReplicaState.DRAINING, outstanding=4, version="tiny"),
    COUNTS,
    replace(STATS, busy_s=7.5, paced_steps=100, overrun_steps=6),
    busy_fraction=0.75,
    ejections=3,
    restarts=1,
    cold_start_s={"weights": 1.25},
)


def registry_of(*, aliases: bool = False) -> CollectorRegistry:
    registry = CollectorRegistry()
    metrics = ApiMetrics(registry)
    metrics.record_exchange("/v1/completions", "POST", 200, 0.25)
    metrics.record_exchange("/v1/completions", "POST", None, 0.25)
    metrics.record_tokens(4, 0.008)
    metrics.end_generation("stop", 0.5)
    metrics.traffic.record("chat", Request("q", "tiny", (1,), tenant="t", region="eu"), stream=True)
    registry.register(EngineCollector(lambda: STATS, model_name="tiny", vllm_aliases=aliases))
    registry.register(FleetCollector(lambda: [READING]))
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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("attempts_total", 9),
        ("retries_total", 2),
        ("hedges_total", 1),
        ("resumed_streams_total", 1),
        ("ejections_total", 3),
        ("restarts_total", 1),
        ("busy_seconds_total", 7.5),
        ("outstanding", 4),
        ("utilisation_ratio", 0.75),
        ("overrun_ratio", 0.06),
    ],
)
def test_a_replicas_reading_becomes_its_series(name: str, value: float) -> None:
    assert registry_of().get_sample_value(f"miniserve_replica_{name}", {"replica": "r0"}) == value


def test_a_replicas_series_with_labels_of_their_own() -> None:
    registry = registry_of()
    for labels, name, value in (
        ({"kind": "unreachable"}, "failures_total", 2),
        ({"stage": "weights"}, "cold_start_seconds", 1.25),
        ({"model": "tiny", "state": "draining"}, "state", 1),
        ({"model": "tiny", "state": "ready"}, "state", 0),
    ):
        assert registry.get_sample_value(f"miniserve_replica_{name}", {"replica": "r0", **labels}) == value


def test_a_replica_that_has_not_reported_lacks_what_only_a_report_says() -> None:
    registry = CollectorRegistry()
    registry.register(FleetCollector(lambda: [ReplicaReading(ReplicaView("r0"), ReplicaCounts())], vllm_aliases=True))
    assert registry.get_sample_value("miniserve_replica_attempts_total", {"replica": "r0"}) == 0
    for name in ("busy_seconds_total", "utilisation_ratio", "overrun_ratio"):
        assert registry.get_sample_value(f"miniserve_replica_{name}", {"replica": "r0"}) is None
    assert generate_latest(registry).count(b"vllm:num_requests_running{") == 0


def test_traffic_is_counted_by_who_asks() -> None:
    registry = registry_of()
    labels = {"endpoint": "chat", "stream": "true", "model": "tiny"}
    assert registry.get_sample_value("miniserve_calls_total", labels) == 1
    for name, value in (("tenant", "t"), ("region", "eu"), ("feature", "none"), ("priority", "standard")):
        assert registry.get_sample_value(f"miniserve_calls_by_{name}_total", {name: value}) == 1


def test_whatever_clients_call_themselves_a_label_has_few_values() -> None:
    label = BoundedLabel()
    first = [label.value(f"tenant {i}") for i in range(MOST_VALUES)]
    assert first == [f"tenant {i}" for i in range(MOST_VALUES)]
    assert {label.value(f"late {i}") for i in range(1000)} == {OTHER}
    assert label.value("tenant 3") == "tenant 3"
    assert len(BoundedLabel().value("x" * 5000)) == LONGEST_VALUE
