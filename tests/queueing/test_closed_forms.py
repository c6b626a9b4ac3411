"""Closed forms of queueing theory: golden values, agreement with each other, and refusal of what has no answer."""

from __future__ import annotations

import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniserve.planning import queueing as q

loads = st.floats(0.01, 0.97)


def printed(value: float, digits: int) -> pytest.approx:  # type: ignore[valid-type]
    """Match a value to the digits that were printed."""
    return pytest.approx(value, abs=0.5000001 * 10.0**-digits)


def test_one_exponential_server_at_80_per_cent() -> None:
    assert q.mm1_in_system(0.8, 1) == printed(4, 4)
    assert q.mm1_sojourn_s(0.8, 1) == printed(5, 4)
    percentiles = [q.mm1_sojourn_percentile_s(0.8, 1, p) for p in (50, 95, 99)]
    assert percentiles == [printed(3.4657, 4), printed(14.9787, 4), printed(23.0259, 4)]
    assert q.mm1_waiting_percentile_s(0.8, 1, 95) == printed(13.8629, 4)
    assert q.mm1_waiting_tail(0.8, 1, q.mm1_waiting_percentile_s(0.8, 1, 95)) == pytest.approx(0.05)
    assert q.mm1_waiting_percentile_s(0.8, 1, 20) == 0.0, "one in five finds the server idle"


@pytest.mark.parametrize(
    ("load", "servers", "must_wait", "waiting_s"),
    [
        (1.6, 2, 0.711111, 1.777778),
        (2, 3, 0.444444, 0.444444),
        (8, 10, 0.409180, 0.204590),
        (20, 24, 0.298072, 0.074518),
        (90, 100, 0.216940, 0.021694),
    ],
)
def test_several_servers(load: float, servers: int, must_wait: float, waiting_s: float) -> None:
    assert q.erlang_c(load, servers) == printed(must_wait, 6)
    assert q.mmc_waiting_s(load, 1, servers) == printed(waiting_s, 6)
    assert q.mmc_waiting_tail(load, 1, servers, 0.0) == pytest.approx(must_wait, abs=1e-6)


def test_loss_without_a_queue() -> None:
    assert q.erlang_b(8, 10) == printed(0.121661, 6)
    assert q.erlang_b(3.0, 1) == 0.75


def test_large_fleets_approach_square_root_staffing() -> None:
    assert q.halfin_whitt_c(1) == printed(0.2234, 4)
    assert q.erlang_c(200, math.ceil(200 + math.sqrt(200))) == printed(0.2099, 4)


@pytest.mark.parametrize(
    ("cv2", "waiting_s", "digits"), [(0, 2.0, 4), (0.25, 2.5, 4), (1, 4.0, 4), (math.e - 1, 5.4366, 4), (4, 10.0, 4)]
)
def test_general_service(cv2: float, waiting_s: float, digits: int) -> None:
    assert q.mg1_waiting_s(0.8, 1.0, cv2) == printed(waiting_s, digits)


@pytest.mark.parametrize(("cv", "sojourn_s"), [(0.5, 3.2674), (1, 5), (2, 11.9552), (3, 23.5578)])
def test_general_arrivals(cv: float, sojourn_s: float) -> None:
    assert q.gim1_sojourn_s(q.gamma_gap_transform(0.8, cv), 0.8, 1) == printed(sojourn_s, 4)


def test_priorities() -> None:
    waiting = q.priority_waiting_s((0.3, 0.5), 1)
    assert waiting == (printed(1.142857, 6), printed(5.714286, 6))
    assert 0.3 * waiting[0] + 0.5 * waiting[1] == pytest.approx(3.2), "no order of service changes the waiting work"
    assert q.priority_preemptive_sojourn_s((0.3, 0.5), 1) == (printed(1.428571, 6), printed(7.142857, 6))


def test_a_bounded_queue() -> None:
    assert q.mm1k_blocking(0.9, 1, 10) == printed(0.050814, 6)
    assert q.mm1k_in_system(0.9, 1, 10) == printed(3.9694, 4)
    assert q.mm1k_blocking(1.0, 1, 4) == pytest.approx(1 / 5)
    assert q.mm1k_blocking(100.0, 1, 500) == pytest.approx(0.99)


def test_batches() -> None:
    assert q.batch_arrivals_in_system(0.8, 4) == printed(10, 4)
    assert q.bulk_service_root(3, 1, 4) == printed(0.888180, 6)
    assert q.bulk_service_in_system(3, 1, 4) == printed(7.9429, 4)
    assert q.bulk_service_root(6, 1, 8) == printed(0.935660, 6)
    assert q.bulk_service_in_system(6, 1, 8) == printed(14.5424, 4)


@pytest.mark.parametrize(
    ("rho", "sojourn_s"),
    [(0.5, 1.2657), (0.7, 1.6145), (0.8, 1.9474), (0.9, 2.6141), (0.95, 3.3830), (0.99, 5.4320)],
)
def test_two_choices(rho: float, sojourn_s: float) -> None:
    assert q.power_of_d_sojourn_s(rho, 1, 2) == printed(sojourn_s, 4)


def test_three_choices_and_one() -> None:
    assert q.power_of_d_sojourn_s(0.9, 1, 3) == printed(2.0279, 4)
    assert q.power_of_d_sojourn_s(0.9, 1, 1) == pytest.approx(10)


@pytest.mark.parametrize(
    ("lam", "max_running", "sojourn_s"),
    [(4, 64, 0.5833), (12, 64, 0.7500), (20, 64, 1.0500), (24, 64, 1.3126), (3, 4, 0.5963), (5, 4, 0.8814)],
)
def test_continuous_batching(lam: float, max_running: int, sojourn_s: float) -> None:
    assert q.batching_sojourn_s(lam, 50, 0.01, 0.0005, max_running) == printed(sojourn_s, 4)


def test_capacity_of_continuous_batching() -> None:
    assert q.batching_capacity_per_s(50, 0.01, 0.0005, 4) == pytest.approx(4 / 0.012 / 50)
    near = 0.999 * q.batching_capacity_per_s(50, 0.01, 0.0005, 64)
    assert q.batching_in_system(near, 50, 0.01, 0.0005, 64) > 500
    assert math.isfinite(q.batching_in_system(1500, 50, 0.01, 0.00001, 4000)), "thousands of slots do not overflow"


# ---- forms that must agree where they meet


@given(loads)
def test_a_single_server_is_the_special_case_of_everything(rho: float) -> None:
    sojourn = pytest.approx(q.mm1_sojourn_s(rho, 1), rel=1e-6)
    assert 1 + q.mmc_waiting_s(rho, 1, 1) == sojourn
    assert 1 + q.mg1_waiting_s(rho, 1, 1) == sojourn
    assert q.gim1_sojourn_s(lambda s: rho / (rho + s), rho, 1) == sojourn
    assert q.ps_sojourn_s(rho, 1, 1) == sojourn
    assert 1 + q.priority_waiting_s((rho,), 1)[0] == sojourn
    assert q.priority_preemptive_sojourn_s((rho,), 1)[0] == sojourn
    assert q.batch_arrivals_in_system(rho, 1) == pytest.approx(q.mm1_in_system(rho, 1))
    assert q.bulk_service_in_system(rho, 1, 1) == pytest.approx(q.mm1_in_system(rho, 1))
    # one slot, a step of one second per token, one token per request on average: the chain of M/M/1
    assert q.batching_sojourn_s(rho, 1, 1, 0, 1) == sojourn
    assert q.batching_sojourn_s(rho, 1, 0, 1, 7) == sojourn, "speed shared equally: processor sharing"


@given(loads, st.floats(0.2, 5))
def test_waiting_scales_with_the_unit_of_time(rho: float, mu: float) -> None:
    assert q.mmc_waiting_s(3 * rho * mu, mu, 3) == pytest.approx(q.mmc_waiting_s(3 * rho, 1, 3) / mu)
    assert q.power_of_d_sojourn_s(rho * mu, mu, 2) == pytest.approx(q.power_of_d_sojourn_s(rho, 1, 2) / mu)
    assert q.gim1_sojourn_s(q.gamma_gap_transform(rho * mu, 2), rho * mu, mu) == pytest.approx(
        q.gim1_sojourn_s(q.gamma_gap_transform(rho, 2), rho, 1) / mu, rel=1e-6
    )


@given(st.floats(0.1, 30), st.integers(1, 40))
def test_blocks_of_one_size_are_erlangs_loss(load: float, capacity: int) -> None:
    assert q.kaufman_roberts(capacity, (load,), (1,))[0] == pytest.approx(q.erlang_b(load, capacity))
    assert q.kaufman_roberts(3 * capacity, (load,), (3,))[0] == pytest.approx(q.erlang_b(load, capacity))


def test_blocks_of_several_sizes_agree_with_counting_all_states() -> None:
    capacity, offered, sizes = 12, (2.0, 1.0, 0.5), (1, 3, 5)
    fits = [
        state
        for state in product(range(13), range(5), range(3))
        if sum(n * b for n, b in zip(state, sizes, strict=True)) <= capacity
    ]
    weight = {s: math.prod(a**n / math.factorial(n) for a, n in zip(offered, s, strict=True)) for s in fits}
    total = sum(weight.values())
    lost = [
        sum(w for s, w in weight.items() if sum(n * b for n, b in zip(s, sizes, strict=True)) + size > capacity) / total
        for size in sizes
    ]
    assert q.kaufman_roberts(capacity, offered, sizes) == pytest.approx(lost)


def test_a_pool_of_thousands_of_blocks_does_not_overflow() -> None:
    blocking = q.kaufman_roberts(5000, (60.0, 12.0), (64, 128))
    assert 0 < blocking[0] < blocking[1] < 1


# ---- no answer


@pytest.mark.parametrize(
    "call",
    [
        lambda: q.mm1_sojourn_s(1.0, 1.0),
        lambda: q.mm1_in_system(1.2, 1.0),
        lambda: q.mg1_waiting_s(2.0, 0.5, 1),
        lambda: q.ps_sojourn_s(2.0, 0.5, 1),
        lambda: q.gim1_sojourn_s(q.gamma_gap_transform(2, 1), 2, 1),
        lambda: q.erlang_c(3, 3),
        lambda: q.mmc_waiting_s(3, 1, 3),
        lambda: q.power_of_d_sojourn_s(1, 1, 2),
        lambda: q.priority_waiting_s((0.5, 0.5), 1),
        lambda: q.priority_preemptive_sojourn_s((0.9, 0.5), 1),
        lambda: q.batch_arrivals_in_system(1.0, 4),
        lambda: q.bulk_service_root(4, 1, 4),
        lambda: q.batching_sojourn_s(6.7, 50, 0.01, 0.0005, 4),
    ],
)
def test_a_queue_that_only_grows_has_no_mean(call: object) -> None:
    with pytest.raises(ValueError, match=r"not stable: .+ \([\d.]+\) must be below .+ \([\d.]+\)"):
        call()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: q.mm1_sojourn_s(-0.5, 1), r"lam \(-0.5\)"),
        (lambda: q.mm1_sojourn_s(0.5, 0), r"mu \(0\)"),
        (lambda: q.mm1_sojourn_s(math.nan, 1), r"lam \(nan\)"),
        (lambda: q.mm1_sojourn_s(0.5, math.inf), r"mu \(inf\)"),
        (lambda: q.mm1_sojourn_percentile_s(0.5, 1, 100), "at 100"),
        (lambda: q.mm1_waiting_percentile_s(0.5, 1, -1), "at -1"),
        (lambda: q.mm1k_blocking(0.9, 1, 0), r"places \(0\)"),
        (lambda: q.mg1_waiting_s(0.5, 1, -1), r"service_cv2 \(-1\)"),
        (lambda: q.mg1_waiting_s(0.5, 0, 1), r"mu \(0.0\)"),
        (lambda: q.gamma_gap_transform(1, 0), r"cv \(0\)"),
        (lambda: q.erlang_b(-1, 2), r"load \(-1\)"),
        (lambda: q.erlang_b(1, 2.5), r"servers \(2.5\)"),  # type: ignore[arg-type]
        (lambda: q.halfin_whitt_c(-1), r"beta \(-1\)"),
        (lambda: q.power_of_d_sojourn_s(0.5, 1, 0), r"choices \(0\)"),
        (lambda: q.priority_waiting_s((0.3, -0.1), 1), r"lams\[1\] \(-0.1\)"),
        (lambda: q.batching_sojourn_s(1, 0, 0.01, 0.0005, 4), r"mean_output_tokens \(0\)"),
        (lambda: q.batching_sojourn_s(1, 50, -0.01, 0.0005, 4), r"alpha_s \(-0.01\)"),
        (lambda: q.batching_capacity_per_s(50, 0.0, 0.0, 4), "one of them positive"),
        (lambda: q.kaufman_roberts(10, (1.0,), (0,)), r"sizes\[0\] \(0\)"),
        (lambda: q.kaufman_roberts(10, (-1.0,), (1,)), r"loads\[0\] \(-1.0\)"),
    ],
)
def test_a_bad_parameter_is_named_with_its_value(call: object, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        call()  # type: ignore[operator]
