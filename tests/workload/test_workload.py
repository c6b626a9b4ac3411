"""Synthetic demand: rates, lengths and chats are as calibrated, and exchanging one part changes no other."""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miniserve.types import Priority, Request
from miniserve.workload import Bursts, Constant, Conversations, Geometric, Lengths, Mix, Poisson, Quantiles, Workload
from miniserve.workload.conversations import GAP_S
from miniserve.workload.lengths import CODE_OUTPUT, CODE_PROMPT, CONVERSATION_OUTPUT, CONVERSATION_PROMPT
from miniserve.workload.requests import TOKENS_PER_CHAT

CURVES = {
    "conversation prompt": (CONVERSATION_PROMPT, 1154.7),
    "conversation output": (CONVERSATION_OUTPUT, 211.1),
    "code prompt": (CODE_PROMPT, 2047.8),
    "code output": (CODE_OUTPUT, 27.9),
}
chatty = Workload(Poisson(2.0), conversations=Conversations())


def gaps(times: list[float]) -> list[float]:
    return [b - a for a, b in itertools.pairwise([0.0, *times])]


# --- arrivals ------------------------------------------------------------------------------------------------------


def test_poisson_gaps_have_the_mean_and_the_spread_of_an_exponential() -> None:
    times = list(itertools.islice(Poisson(4.0).times(Random(1)), 20_000))
    assert statistics.fmean(gaps(times)) == pytest.approx(0.25, rel=0.03)
    assert statistics.stdev(gaps(times)) == pytest.approx(0.25, rel=0.03)


def test_poisson_counts_are_not_over_dispersed_and_bursts_are() -> None:
    def dispersion(times: list[float]) -> float:
        counts = Counter(int(t // 10) for t in times)
        series = [counts[i] for i in range(int(times[-1] // 10))]
        return statistics.variance(series) / statistics.fmean(series)

    calm, bursty = Poisson(4.0), Bursts(4.0, peak_per_s=16.0, burst_s=10.0, calm_s=50.0)
    assert dispersion(list(itertools.islice(calm.times(Random(2)), 20_000))) == pytest.approx(1.0, abs=0.15)
    assert dispersion(list(itertools.islice(bursty.times(Random(2)), 20_000))) > 10


@pytest.mark.parametrize("peak_per_s", [4.0, 10.0, 24.0])
def test_bursts_keep_the_mean_rate(peak_per_s: float) -> None:
    bursts = Bursts(4.0, peak_per_s, burst_s=1.0, calm_s=5.0)
    times = list(itertools.islice(bursts.times(Random(3)), 40_000))
    assert len(times) / times[-1] == pytest.approx(4.0, rel=0.04)
    share = bursts.burst_fraction
    assert share * bursts.peak_per_s + (1 - share) * bursts.calm_per_s == pytest.approx(4.0)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 100), st.floats(1, 6), st.floats(0.1, 20), st.floats(0.1, 20))
def test_times_never_go_back(seed: int, rate: float, peak: float, burst_s: float, calm_s: float) -> None:
    most = rate * (burst_s + calm_s) / burst_s
    bursts = Bursts(rate, min(peak * rate, most), burst_s, calm_s)
    times = list(itertools.islice(bursts.times(Random(seed)), 200))
    assert times == sorted(times)
    assert times[0] >= 0


def test_rates_that_make_no_sense_are_refused() -> None:
    for rate in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="rate_per_s"):
            Poisson(rate)
    with pytest.raises(ValueError, match=r"peak_per_s \(30\) must lie between rate_per_s \(4\) and 24"):
        Bursts(4.0, peak_per_s=30.0, burst_s=10.0, calm_s=50.0)
    with pytest.raises(ValueError, match="peak_per_s"):
        Bursts(4.0, peak_per_s=3.0)


# --- lengths -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CURVES)
def test_sampled_quantiles_are_the_published_knots(name: str) -> None:
    """Between 4 standard errors of probability around each knot, as sampling allows."""
    curve, knots = CURVES[name][0], CURVES[name][0].knots
    n, rng = 40_000, Random(4)
    sample = sorted(curve.at(rng.random()) for _ in range(n))
    for share, value in knots[1:-1]:
        slack = 4 * math.sqrt(share * (1 - share) / n)
        low, high = sample[max(0, int((share - slack) * n))], sample[min(n - 1, int((share + slack) * n))]
        assert low <= value <= high, f"quantile {share}: {low}..{high} does not hold {value}"
    assert sample[0] >= knots[0][1]
    assert sample[-1] <= knots[-1][1]


@pytest.mark.parametrize("name", CURVES)
def test_means_agree_with_the_published_ones(name: str) -> None:
    """They were not used to make the curves, so this says how good the curves are."""
    curve, published = CURVES[name]
    assert curve.mean == pytest.approx(published, rel=0.08)


def test_the_exact_mean_is_the_sampled_mean() -> None:
    curve, rng = CONVERSATION_PROMPT, Random(5)
    assert statistics.fmean(curve.value(rng.random()) for _ in range(50_000)) == pytest.approx(curve.mean, rel=0.02)


@given(st.floats(0, 0.999999))
def test_share_below_is_the_inverse_of_value(u: float) -> None:
    assert GAP_S.share_below(GAP_S.value(u)) == pytest.approx(u, abs=1e-9)


def test_share_below_knows_its_ends() -> None:
    assert [GAP_S.share_below(x) for x in (0.0, 9.0, 123.0, 4000.0)] == [0.0, 0.0, pytest.approx(0.5), 1.0]


def test_a_geometric_length_has_its_mean_and_no_memory() -> None:
    lengths, rng = Geometric(50.0), Random(6)
    sample = [lengths.at(rng.random()) for _ in range(40_000)]
    assert statistics.fmean(sample) == pytest.approx(50, rel=0.03)
    assert statistics.fmean(x - 100 for x in sample if x > 100) == pytest.approx(50, rel=0.05)
    assert min(sample) == 1


@pytest.mark.parametrize(
    "lengths", [Constant(7), Geometric(1.0), Geometric(30.0), Quantiles(CODE_OUTPUT.knots, scale=0.01)]
)
@given(u=st.floats(0, 1, exclude_max=True))
def test_every_length_is_at_least_one_token(lengths: Lengths, u: float) -> None:
    assert lengths.at(u) >= 1


def test_scale_multiplies_everything() -> None:
    assert Quantiles(CODE_PROMPT.knots, scale=0.5).mean == pytest.approx(CODE_PROMPT.mean / 2)


@pytest.mark.parametrize(
    "knots",
    [((0.0, 1.0), (0.5, 2.0)), ((0.0, 1.0), (0.6, 2.0), (0.5, 3.0), (1.0, 4.0)), ((0.0, 0.0), (1.0, 1.0))],
)
def test_knots_that_are_no_distribution_are_refused(knots: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ValueError, match="quantile knots must"):
        Quantiles(knots)


# --- chats ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def day() -> list[Request]:
    """Fifty thousand requests of about seven hours."""
    return list(chatty.requests(seed=1, count=50_000))


def test_the_named_share_continues_an_earlier_request(day: list[Request]) -> None:
    seen: set[str | None] = set()
    late = continued = 0
    for request in day:
        if request.arrived_s > 3600:  # the longest gap: later follow-ups continue chats of this run
            late += 1
            continued += request.session_key in seen
        seen.add(request.session_key)
    assert continued / late == pytest.approx(0.39, abs=0.01)


def test_the_share_is_there_from_the_first_minute() -> None:
    """Chats that began before the run make the difference: their prompts are long although nothing preceded them."""
    workload = dataclasses.replace(chatty, arrivals=Poisson(200.0), prompt=Constant(10))
    first = [len(request.prompt_ids) > 10 for request in workload.requests(seed=2, duration_s=60.0)]
    assert statistics.fmean(first) == pytest.approx(0.39, abs=0.02)


def test_gaps_between_turns_follow_their_knots(day: list[Request]) -> None:
    last: dict[str | None, float] = {}
    waits = []
    for request in day:
        if request.session_key in last and request.arrived_s > 3600:
            waits.append(request.arrived_s - last[request.session_key])
        last[request.session_key] = request.arrived_s
    p10, *_, p50, _, _, _, p90 = statistics.quantiles(waits, n=10)
    assert (p10, p50, p90) == (pytest.approx(42, rel=0.1), pytest.approx(123, rel=0.1), pytest.approx(483, rel=0.1))


def test_most_chats_have_one_turn_and_some_have_dozens(day: list[Request]) -> None:
    turns = Counter(request.session_key for request in day)
    assert statistics.fmean(count == 1 for count in turns.values()) > 0.6
    assert max(turns.values()) > 25


def test_a_follow_up_repeats_all_that_was_said_and_adds_a_message(day: list[Request]) -> None:
    said: dict[str | None, Request] = {}
    follow_ups = 0
    for request in day:
        before = said.get(request.session_key)
        if before is not None:
            follow_ups += 1
            context = len(before.prompt_ids) + before.sampling.max_tokens
            assert request.prompt_ids[0] == before.prompt_ids[0]
            assert len(request.prompt_ids) > context
            assert (request.tenant, request.priority, request.region) == (before.tenant, before.priority, before.region)
        said[request.session_key] = request
    assert follow_ups > 10_000
    assert max(len(request.prompt_ids) for request in day) <= 14_050


def test_chats_share_no_tokens(day: list[Request]) -> None:
    chat_of = {request.prompt_ids[0]: request.session_key for request in day}
    assert len(chat_of) == len(set(chat_of.values()))
    assert all(first % TOKENS_PER_CHAT == 0 for first in chat_of)


def test_without_conversations_every_request_stands_alone() -> None:
    requests = list(Workload(Poisson(5.0)).requests(seed=1, count=500))
    assert len({request.session_key for request in requests}) == 500


# --- the whole -----------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_requests_and_another_seed_others() -> None:
    first, again, other = (list(chatty.requests(seed=s, count=300)) for s in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_run_ends_by_count_or_by_time() -> None:
    assert len(list(chatty.requests(seed=1, count=10))) == 10
    requests = list(chatty.requests(seed=1, duration_s=100.0))
    assert requests[-1].arrived_s <= 100.0
    longer = list(chatty.requests(seed=1, duration_s=200.0))
    assert longer[: len(requests)] == requests
    assert longer[len(requests)].arrived_s > 100.0


def luck(workload: Workload) -> dict[str, list[object]]:
    requests = list(workload.requests(seed=9, count=400))
    return {
        "when": [r.arrived_s for r in requests],
        "prompt": [len(r.prompt_ids) for r in requests],
        "output": [r.sampling.max_tokens for r in requests],
        "tenant": [r.tenant for r in requests],
        "chat": [r.session_key for r in requests],
    }


def test_exchanging_one_part_leaves_the_others_luck() -> None:
    """Common random numbers: what differs between two runs is what was exchanged, and nothing else."""
    mixed = dataclasses.replace(chatty, tenants=Mix({"a": 1, "b": 1}))
    base = luck(mixed)
    changes: list[tuple[Workload, set[str]]] = [
        (dataclasses.replace(mixed, prompt=Constant(5)), {"prompt"}),
        (dataclasses.replace(mixed, tenants=Mix({"a": 9, "b": 1})), {"tenant"}),
        (dataclasses.replace(mixed, output=Constant(5)), {"output", "prompt"}),  # follow-ups repeat the answers
        (dataclasses.replace(mixed, regions=Mix({"eu": 1, "us": 1})), set()),
        (dataclasses.replace(mixed, features=Mix({"search": 1, "chat": 1})), set()),
    ]
    for workload, expected in changes:
        changed = luck(workload)
        assert {name for name in base if base[name] != changed[name]} == expected
    alone = luck(dataclasses.replace(mixed, conversations=None))
    assert (alone["when"], alone["output"]) == (base["when"], base["output"])


def test_first_prompts_stay_when_chats_are_switched_off() -> None:
    with_chats = list(chatty.requests(seed=9, count=400))
    alone = list(dataclasses.replace(chatty, conversations=None).requests(seed=9, count=400))
    same = [len(a.prompt_ids) == len(b.prompt_ids) for a, b in zip(with_chats, alone, strict=True)]
    assert statistics.fmean(same) == pytest.approx(0.61, abs=0.08)


def test_tenants_priorities_regions_and_features_come_in_their_shares() -> None:
    workload = Workload(
        Poisson(5.0),
        tenants=Mix({"big": 3, "small": 1}),
        priorities=Mix({Priority.INTERACTIVE: 0.5, Priority.BATCH: 0.5}),
        regions=Mix({"eu": 0.2, "us": 0.8}),
        features=Mix({"search": 0.9, "chat": 0.1}),
    )
    requests = list(workload.requests(seed=3, count=4000))
    assert statistics.fmean(r.tenant == "big" for r in requests) == pytest.approx(0.75, abs=0.03)
    assert statistics.fmean(r.priority is Priority.BATCH for r in requests) == pytest.approx(0.5, abs=0.03)
    assert statistics.fmean(r.region == "eu" for r in requests) == pytest.approx(0.2, abs=0.03)
    assert statistics.fmean(r.feature == "search" for r in requests) == pytest.approx(0.9, abs=0.03)


def test_a_deadline_counts_from_arrival() -> None:
    request = next(dataclasses.replace(chatty, deadline_after_s=3.0).requests())
    assert request.deadline_s == request.arrived_s + 3.0


@pytest.mark.parametrize("shares", [{}, {"a": -1.0, "b": 2.0}, {"a": 0.0}])
def test_shares_that_make_no_sense_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="shares"):
        Mix(shares)
