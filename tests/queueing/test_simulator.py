"""Simulated replicas, built into textbook queues, wait exactly as long as theory says.

Two kinds of proof. *Path by path*: on the same arrivals and services the simulator gives the same departures as a
recursion of a few lines, to rounding. *On average*: over independent seeds the closed form lies inside the 99.9 %
interval of what the simulator gives. The first finds any wrong order or lost time, the second a wrong recursion.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import simpy
from queues import GRAIN_S, Alone, Balanced, CentralQueue, Floats, Station, Visits, job, over_seeds, server, visit

from miniserve.config import CacheConfig, SchedulerConfig
from miniserve.engine.step_time import StepTimeModel
from miniserve.observe.intervals import Interval
from miniserve.planning import queueing
from miniserve.policies.routing.balancer import BALANCERS
from miniserve.scenario import load as load_scenario
from miniserve.sim.replica import SimReplica
from miniserve.sim.run import simulate
from miniserve.types import Priority, Request, SamplingParams

Rng = np.random.Generator
ERLANG = """
[run]
requests = {n}
warmup_s = 60
[workload]
prompt = {{ kind = "geometric", mean_tokens = 1000 }}
output = {{ kind = "constant", tokens = 1 }}
arrivals = {{ kind = "poisson", rate_per_s = {load} }}
[engine.scheduler]
max_running = 1
max_batch_tokens = 1_000_000
[engine.cache]
num_blocks = 1000
block_size = 1000
prefix_caching = false
[[fleet.replicas]]
name = "r"
count = {servers}
step_time = {{ base_s = 0, per_prefill_token_s = {grain_s}, per_decode_row_s = {grain_s} }}
[policies]
progress = "off"
[gateway_queue]
"""
SIZES = [3000, pytest.param(40_000, marks=pytest.mark.full)]  # requests per seed


def one_server(gaps_s: Floats, services_s: Floats, *, max_waiting: int = 10**9) -> Visits:
    env = simpy.Environment()
    jobs = (job(i, service_s) for i, service_s in enumerate(services_s))
    return visit(env, Alone(server(env, max_waiting=max_waiting)), jobs, gaps_s)


def several_servers(gaps_s: Floats, services_s: Floats, servers: int) -> Visits:
    env = simpy.Environment()
    jobs = (job(i, service_s) for i, service_s in enumerate(services_s))
    return visit(env, CentralQueue(env, servers), jobs, gaps_s)


def prioritized(gaps_s: Floats, services_s: Floats, classes: Floats) -> Visits:
    env = simpy.Environment()
    jobs = (job(i, s, Priority(int(c))) for i, (s, c) in enumerate(zip(services_s, classes, strict=True)))
    return visit(env, Alone(server(env)), jobs, gaps_s)


def as_served(services_s: Floats) -> Floats:
    """Return service times as whole numbers of prompt tokens make them."""
    return np.maximum(1, np.round(services_s / GRAIN_S)) * GRAIN_S


def assert_meets(intervals: list[Interval], *expected: float, within: float) -> None:
    """Check that each interval holds what is expected, and that it is narrow enough to mean something."""
    for interval, value in zip(intervals, expected, strict=True):
        assert interval.half_width < within * value, f"an interval this wide proves nothing: {interval}"
        assert value in interval, f"{value} is not in {interval}"


# ---- path by path


def draws(rho: float, n: int = 3000) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(7)
    return rng.exponential(1.0, n), rng.exponential(rho, n)


def test_one_server_follows_lindleys_recursion() -> None:
    gaps_s, services_s = draws(0.9)
    visits = one_server(gaps_s, services_s)

    free_s = 0.0
    for arrived_s, service_s, ended_s in zip(visits.arrived_s, as_served(services_s), visits.ended_s, strict=True):
        free_s = max(arrived_s, free_s) + service_s
        assert ended_s == pytest.approx(free_s, rel=1e-9)


def test_several_servers_follow_kiefer_and_wolfowitz() -> None:
    gaps_s, services_s = draws(2.7)
    visits = several_servers(gaps_s, services_s, 3)

    free_s = [0.0] * 3
    for arrived_s, service_s, ended_s in zip(visits.arrived_s, as_served(services_s), visits.ended_s, strict=True):
        end_s = max(arrived_s, heapq.heappop(free_s)) + service_s
        heapq.heappush(free_s, end_s)
        assert ended_s == pytest.approx(end_s, rel=1e-9)


def test_priorities_follow_a_heap_of_those_present() -> None:
    gaps_s, services_s = draws(0.9)
    classes = np.random.default_rng(8).integers(0, 3, len(gaps_s))
    visits = prioritized(gaps_s, services_s, classes)

    services_s, now_s, arrived = as_served(services_s), 0.0, 0
    present: list[tuple[int, int]] = []
    for _ in services_s:
        if not present:
            now_s = max(now_s, visits.arrived_s[arrived])
        while arrived < len(gaps_s) and visits.arrived_s[arrived] <= now_s:
            heapq.heappush(present, (classes[arrived], arrived))
            arrived += 1
        _, first = heapq.heappop(present)
        now_s += services_s[first]
        assert visits.ended_s[first] == pytest.approx(now_s, rel=1e-9)


def test_a_bounded_queue_refuses_exactly_those_who_find_it_full() -> None:
    visits = one_server(*draws(1.5), max_waiting=4)

    ends_s: deque[float] = deque()  # of those present
    for arrived_s, service_s, ended_s in zip(visits.arrived_s, as_served(draws(1.5)[1]), visits.ended_s, strict=True):
        while ends_s and ends_s[0] <= arrived_s:
            ends_s.popleft()
        assert np.isnan(ended_s) == (len(ends_s) == 5), "one in service, four waiting"
        if not np.isnan(ended_s):
            ends_s.append(max(arrived_s, ends_s[-1] if ends_s else 0.0) + service_s)
            assert ended_s == pytest.approx(ends_s[-1], rel=1e-9)


@pytest.mark.parametrize(
    "visits",
    [
        lambda: one_server(*draws(0.9)),
        lambda: several_servers(*draws(2.7), servers=3),
        lambda: one_server(*draws(1.5), max_waiting=4),
        lambda: prioritized(*draws(0.9), np.random.default_rng(8).integers(0, 3, 3000)),
    ],
    ids=["one server", "three servers", "refusals", "priorities"],
)
def test_littles_law_holds_exactly(visits: Callable[[], Visits]) -> None:
    """The area under the replica's own count of requests is the sum of the times that requests spent there."""
    run = visits()

    assert run.area == pytest.approx(float(np.nansum(run.sojourn_s)), rel=1e-9)


# ---- on average


@pytest.mark.parametrize("n", SIZES)
def test_exponential_service(n: int) -> None:
    p50_s, p95_s = (queueing.mm1_sojourn_percentile_s(1, 1 / 0.7, p) for p in (50, 95))

    def figures(rng: Rng) -> tuple[float, ...]:
        sojourn_s = one_server(rng.exponential(1, n), rng.exponential(0.7, n)).settled()
        return sojourn_s.mean(), (sojourn_s <= p50_s).mean(), (sojourn_s <= p95_s).mean()

    assert_meets(over_seeds(figures), queueing.mm1_sojourn_s(1, 1 / 0.7), 0.5, 0.95, within=0.15)


def erlang4(rng: Rng, n: int) -> Floats:
    return rng.gamma(4, 1 / 4, n)


def hyperexponential(rng: Rng, n: int) -> Floats:
    """Two exponentials with balanced means: mean 1, squared coefficient of variation 4."""
    p = (1 + np.sqrt(3 / 5)) / 2
    first = rng.random(n) < p
    return rng.exponential(np.where(first, 1 / (2 * p), 1 / (2 * (1 - p))))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(
    ("service", "cv2", "within"),
    [
        (lambda rng, n: np.ones(n), 0.0, 0.12),
        (erlang4, 0.25, 0.15),
        (lambda rng, n: rng.lognormal(-0.5, 1, n), np.e - 1, 0.3),
        (hyperexponential, 4.0, 0.4),
    ],
    ids=["constant", "erlang-4", "lognormal", "hyperexponential"],
)
def test_general_service(service: Callable[[Rng, int], Floats], cv2: float, within: float, n: int) -> None:
    def mean_waiting_s(rng: Rng) -> tuple[float]:
        services_s = 0.6 * service(rng, n)
        visits = one_server(rng.exponential(1, n), services_s)
        return ((visits.sojourn_s - as_served(services_s))[n // 10 :].mean(),)

    assert_meets(over_seeds(mean_waiting_s), queueing.mg1_waiting_s(1, 0.6, cv2), within=within)


@pytest.mark.parametrize("n", SIZES)
def test_bursty_arrivals(n: int) -> None:
    def mean_sojourn_s(rng: Rng) -> tuple[float]:
        return (one_server(rng.gamma(0.25, 4, n), rng.exponential(0.5, n)).settled().mean(),)

    expected = queueing.gim1_sojourn_s(queueing.gamma_gap_transform(1, 2), 1, 2)
    assert_meets(over_seeds(mean_sojourn_s), expected, within=0.25)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(("load", "servers"), [(1.6, 2), (2, 3), (8, 10)])
def test_several_servers(load: float, servers: int, n: int) -> None:
    def mean_sojourn_s(rng: Rng) -> tuple[float]:
        return (several_servers(rng.exponential(1 / load, n), rng.exponential(1, n), servers).settled().mean(),)

    expected = 1 + queueing.mmc_waiting_s(load, 1, servers)
    assert_meets(over_seeds(mean_sojourn_s), expected, within=0.25)


@pytest.mark.parametrize("n", [1200, pytest.param(20_000, marks=pytest.mark.full)])
@pytest.mark.parametrize(("load", "servers"), [(1.2, 2), (2.1, 3)])
def test_one_queue_at_the_gateway_waits_as_erlang_says(load: float, servers: int, n: int, tmp_path: Path) -> None:
    """A whole run: a scenario's workload, dispatch, and the queue before its replicas."""
    grain_s = 1e-3
    path = tmp_path / "erlang.toml"
    path.write_text(ERLANG.format(n=n, load=load, servers=servers, grain_s=grain_s), encoding="utf-8")
    scenario = load_scenario(path)

    def mean_waiting_s(rng: Rng) -> tuple[float]:
        outcomes = simulate(scenario, int(rng.integers(1 << 30))).outcomes
        return ((outcomes.e2e_s - outcomes.prompt_tokens * grain_s).mean(),)

    assert_meets(over_seeds(mean_waiting_s, seeds=10), queueing.mmc_waiting_s(load, 1, servers), within=0.6)


@pytest.mark.parametrize("n", SIZES)
def test_priority_classes(n: int) -> None:
    def mean_waiting_s(rng: Rng) -> tuple[float, ...]:
        classes, services_s = (rng.random(n) < 0.5 / 0.8).astype(int), rng.exponential(1, n)
        visits = prioritized(rng.exponential(1 / 0.8, n), services_s, classes)
        waiting_s, settled = visits.sojourn_s - as_served(services_s), np.arange(n) >= n // 10
        return tuple(waiting_s[settled & (classes == which)].mean() for which in (0, 1))

    assert_meets(over_seeds(mean_waiting_s), *queueing.priority_waiting_s((0.3, 0.5), 1), within=0.35)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(("rho", "places", "within"), [(0.9, 10, 0.3), (1.2, 4, 0.08)])
def test_a_bounded_queue_refuses_its_share(rho: float, places: int, within: float, n: int) -> None:
    def share_refused(rng: Rng) -> tuple[float]:
        visits = one_server(rng.exponential(1 / rho, n), rng.exponential(1, n), max_waiting=places - 1)
        return (np.isnan(visits.ended_s[n // 10 :]).mean(),)

    assert_meets(over_seeds(share_refused), queueing.mm1k_blocking(rho, 1, places), within=within)


# ---- many servers, each with its own queue


def balanced(rng: Rng, balancer: str, rho: float, servers: int, seconds: float) -> Visits:
    n = round(rho * servers * seconds)
    env = simpy.Environment()
    station = Balanced(env, servers, BALANCERS[balancer]())
    jobs = (job(i, service_s) for i, service_s in enumerate(rng.exponential(1, n)))
    return visit(env, station, jobs, rng.exponential(1 / (rho * servers), n), counted=False)


@pytest.mark.parametrize(
    ("rho", "seconds", "seeds"),
    [(0.5, 50, 10), (0.7, 100, 10), (0.8, 100, 12), pytest.param(0.9, 500, 20, marks=pytest.mark.full)],
)
def test_power_of_two_choices(rho: float, seconds: float, seeds: int) -> None:
    """The form is of infinitely many servers; of a hundred, neighbours still meet: 1 to 2 % more waiting."""
    (mean_s,) = over_seeds(lambda rng: (balanced(rng, "p2c", rho, 100, seconds).settled().mean(),), seeds)

    assert mean_s.estimate == pytest.approx(queueing.power_of_d_sojourn_s(rho, 1, 2), rel=0.03)


def test_one_random_choice_is_as_many_single_servers() -> None:
    mean_s = over_seeds(lambda rng: (balanced(rng, "random", 0.6, 10, 400).settled().mean(),))

    assert_meets(mean_s, queueing.mm1_sojourn_s(0.6, 1), within=0.1)


def test_the_shortest_queue_beats_two_choices_beat_one() -> None:
    """In stochastic order: at every percentile."""

    def percentiles(balancer: str) -> Floats:
        visits = balanced(np.random.default_rng(3), balancer, 0.8, 20, 500)
        return np.percentile(visits.settled(), [25, 50, 75, 90, 99, 99.9])

    shortest, two, one = (percentiles(balancer) for balancer in ("least-outstanding", "p2c", "random"))
    assert np.all(shortest <= two)
    assert np.all(two <= one)
    assert shortest[4] < 0.9 * two[4] < 0.5 * one[4], "and by far at the p99"


# ---- continuous batching


def batching(env: simpy.Environment, alpha_s: float, beta_s: float, max_running: int) -> Station:
    """Return a replica whose step over b sequences takes alpha + beta b, with room for `max_running`."""
    scheduler = SchedulerConfig(max_running, max_batch_tokens=10**6, turn_tokens=None, max_waiting=10**9)
    step_time = StepTimeModel(alpha_s, beta_s, 0.0, 0.0, 0.0)
    cache = CacheConfig(num_blocks=2 * max_running, block_size=10**6, prefix_caching=False)
    return Alone(SimReplica(env, "r0", scheduler, cache, step_time, max_model_len=10**6))


def generation(index: int, output_tokens: int) -> Request:
    """Return a request of one prompt token, which counts as a decode row: as many steps as output tokens."""
    return Request(str(index), "m", range(1), SamplingParams(max_tokens=int(output_tokens), ignore_eos=True))


def batched_sojourn_s(
    lam: float, n: int, alpha_s: float, beta_s: float, max_running: int, lengths: Callable[[Rng, int], Floats]
) -> float:
    rng = np.random.default_rng(11)
    env = simpy.Environment()
    requests = (generation(i, tokens) for i, tokens in enumerate(lengths(rng, n)))
    station = batching(env, alpha_s, beta_s, max_running)
    return float(visit(env, station, requests, rng.exponential(1 / lam, n)).settled().mean())


def geometric(rng: Rng, n: int) -> Floats:
    return rng.geometric(1 / 50, n)


def always_50(rng: Rng, n: int) -> Floats:
    return np.full(n, 50)


def five_or_185(rng: Rng, n: int) -> Floats:
    return np.where(rng.random(n) < 0.75, 5, 185)


@pytest.mark.parametrize("n", [20_000, pytest.param(200_000, marks=pytest.mark.full)])
@pytest.mark.parametrize(("lam", "max_running"), [(4, 64), (12, 64), (20, 64), (24, 64), (3, 4), (5, 4)])
def test_continuous_batching(lam: float, max_running: int, n: int) -> None:
    expected = queueing.batching_sojourn_s(lam, 50, 0.01, 0.0005, max_running)

    assert batched_sojourn_s(lam, n, 0.01, 0.0005, max_running, geometric) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("lengths", [always_50, five_or_185])
def test_continuous_batching_with_room_depends_on_the_mean_length_only(lengths: Callable[[Rng, int], Floats]) -> None:
    expected = queueing.batching_sojourn_s(12, 50, 0.01, 0.0005, 64)

    assert batched_sojourn_s(12, 8000, 0.01, 0.0005, 64, lengths) == pytest.approx(expected, rel=0.05)


def test_equal_shares_slow_down_long_and_short_alike() -> None:
    """With steps that cost per row only, every request takes 1 / (1 - load) times as long as alone."""
    rng, n, token_s = np.random.default_rng(5), 20_000, 1e-4
    tokens = np.where(rng.random(n) < 0.75, 50, 1850)  # 500 on average, with a long tail
    env = simpy.Environment()
    requests = (generation(i, t) for i, t in enumerate(tokens))
    sojourn_s = visit(env, batching(env, 0.0, token_s, 1000), requests, rng.exponential(1 / 14, n)).sojourn_s

    for size in (50, 1850):
        expected = queueing.ps_sojourn_s(14, 500 * token_s, size * token_s)
        assert sojourn_s[tokens == size].mean() == pytest.approx(expected, rel=0.05)
