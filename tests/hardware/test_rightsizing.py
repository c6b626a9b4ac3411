"""Advice on hardware: monotone in load and in strictness, cheap where cheap is enough, and true in the simulator."""

import math

import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from miniserve.errors import SetupError
from miniserve.hardware.prices import load_price_list
from miniserve.hardware.rightsizing import Advice, MeanLoad, SpeedTarget, Unfit, advise, cheapest, seconds_per_request
from miniserve.hardware.spec import replica_spec
from miniserve.seeds import generator
from miniserve.sim.fleet import SimFleet
from miniserve.types import Request, SamplingParams, Send

PRICES = load_price_list()
LLAMA = PRICES.model("llama-3.1-8b")
SMALL = PRICES.model("smollm2-135m")
MACHINES = list(PRICES.hardware.values())
OBJECTIVE = SpeedTarget(ttft_s=2.0, tpot_s=0.1)


@given(
    machine=st.sampled_from(MACHINES),
    rate=st.floats(0.01, 1000),
    factor=st.floats(1, 100),
    prompt=st.integers(1, 4000),
    output=st.integers(1, 1000),
)
def test_more_load_never_needs_fewer_nor_costs_less(machine, rate, factor, prompt, output) -> None:
    less = advise(machine, SMALL, MeanLoad(rate, prompt, output), OBJECTIVE)
    more = advise(machine, SMALL, MeanLoad(rate * factor, prompt, output), OBJECTIVE)
    assert isinstance(less, Unfit) == isinstance(more, Unfit)
    if isinstance(less, Advice) and isinstance(more, Advice):
        assert more.replicas >= less.replicas
        assert more.usd_per_hour >= less.usd_per_hour
        assert more.replicas * more.requests_per_s_each >= rate * factor * (1 - 1e-9)


@given(machine=st.sampled_from(MACHINES), tpot=st.floats(0.01, 1), ttft=st.floats(0.1, 10), looser=st.floats(1, 10))
def test_a_looser_objective_never_needs_more(machine, tpot, ttft, looser) -> None:
    work = MeanLoad(50, 500, 100)
    strict = advise(machine, SMALL, work, SpeedTarget(ttft, tpot))
    loose = advise(machine, SMALL, work, SpeedTarget(ttft * looser, tpot * looser))
    if isinstance(strict, Advice):
        assert isinstance(loose, Advice)
        assert loose.replicas <= strict.replicas
        assert strict.tpot_s <= tpot * (1 + 1e-9)
        assert strict.ttft_s <= ttft * (1 + 1e-9)


@given(machine=st.sampled_from(MACHINES), cached=st.floats(0, 0.95))
def test_cached_prompts_never_cost_more(machine, cached) -> None:
    plain = advise(machine, SMALL, MeanLoad(20, 1155, 211), SpeedTarget(tpot_s=0.5))
    hits = advise(machine, SMALL, MeanLoad(20, 1155, 211, cached), SpeedTarget(tpot_s=0.5))
    if isinstance(plain, Advice):
        assert isinstance(hits, Advice)
        assert hits.replicas <= plain.replicas


def test_the_cheap_card_wins_at_low_load_and_the_fast_one_at_high_load() -> None:
    low, answers = cheapest(MACHINES, LLAMA, MeanLoad(0.1, 1155, 211), OBJECTIVE)
    high, _ = cheapest(MACHINES, LLAMA, MeanLoad(100, 1155, 211), OBJECTIVE)
    assert low is not None
    assert high is not None
    assert (low.hardware, low.replicas) == ("l4", 1)
    assert high.hardware == "h100-80gb"
    assert high.usd_per_million_tokens < low.usd_per_million_tokens
    refused = {answer.hardware: answer.why for answer in answers if isinstance(answer, Unfit)}
    assert set(refused) == {"cpu-2core", "t4"}
    assert all("does not fit" in why for why in refused.values())


def test_an_objective_that_no_machine_meets_says_which() -> None:
    best, answers = cheapest(MACHINES, LLAMA, MeanLoad(1, 1155, 211), SpeedTarget(tpot_s=0.001))
    assert best is None
    assert "limit: time between tokens" in "".join(answer.why for answer in answers if isinstance(answer, Unfit))


def test_capacity_by_hand() -> None:
    cpu = PRICES.machine("cpu-2core")
    answer = advise(cpu, SMALL, MeanLoad(1.0, 100, 50), SpeedTarget(), headroom_fraction=0.0)
    assert isinstance(answer, Advice)
    step = cpu.step_time(SMALL)
    prefill_s = 100 * step.per_prefill_token_s + 100 * 50 * step.per_prefill_pair_s
    step_s = step.base_s + 16 * (step.per_decode_row_s + 125 * step.per_context_token_s + prefill_s / 50)
    assert answer.limited_by == "slots"
    assert answer.tpot_s == pytest.approx(step_s)
    assert answer.requests_per_s_each == pytest.approx(16 / (50 * step_s))
    assert answer.replicas == math.ceil(1.0 / answer.requests_per_s_each)
    assert answer.usd_per_million_tokens == pytest.approx(answer.replicas * 0.08449 / (50 * 3600) * 1e6)
    assert seconds_per_request(step, MeanLoad(1, 100, 50), 16) == pytest.approx(50 * step_s / 16)


def test_the_time_to_first_token_by_hand() -> None:
    """300 prompt tokens in chunks of 128: three steps beside 15 others' decodes, half a step of waiting before."""
    cpu = PRICES.machine("cpu-2core")
    answer = advise(cpu, SMALL, MeanLoad(1.0, 300, 50), SpeedTarget(), headroom_fraction=0.0)
    assert isinstance(answer, Advice)
    step, rows = cpu.step_time(SMALL), 320 * 16 / 350
    decode_s = step.per_decode_row_s + 325 * step.per_context_token_s
    prefill_s = 300 * step.per_prefill_token_s + 300 * 150 * step.per_prefill_pair_s
    assert answer.limited_by == "KV blocks"
    half_a_step_s = (step.base_s + rows * (decode_s + prefill_s / 50)) / 2
    assert answer.ttft_s == pytest.approx(half_a_step_s + 3 * (step.base_s + rows * decode_s) + prefill_s)


def test_kv_blocks_bound_long_texts() -> None:
    answer = advise(PRICES.machine("l4"), LLAMA, MeanLoad(1.0, 6000, 200), SpeedTarget())
    assert isinstance(answer, Advice)
    assert answer.limited_by == "KV blocks"


def test_spot_and_spares_change_the_bill_only() -> None:
    work = MeanLoad(10, 1155, 211)
    plain = advise(PRICES.machine("l4"), LLAMA, work, OBJECTIVE)
    spot = advise(PRICES.machine("l4"), LLAMA, work, OBJECTIVE, spot=True, spare_replicas=2)
    assert isinstance(plain, Advice)
    assert isinstance(spot, Advice)
    assert spot.replicas == plain.replicas + 2
    assert spot.usd_per_hour == pytest.approx(spot.replicas * 0.282)


@pytest.mark.parametrize(
    ("work", "message"),
    [((0, 1, 1, 0), "requests_per_s"), ((1, 0, 1, 0), "at least 1"), ((1, 1, 1, 1.0), "cached_fraction is 1.0")],
)
def test_nonsense_is_refused(work, message) -> None:
    with pytest.raises(SetupError, match=message):
        MeanLoad(*work)


def simulate(replicas: int, rate_per_s: float) -> SpeedTarget:
    """Serve 300 equal requests that come at random on L4s, dealt out in turn; return the means that they met."""
    env, luck = simpy.Environment(), generator(1, "arrivals")
    fleet = SimFleet(env)
    for _ in range(replicas):
        fleet.add(replica_spec(PRICES.machine("l4"), LLAMA), ready=True)
    first_s: list[float] = []
    between_s: list[float] = []

    def one(number: int):
        first, arrived_s = number << 20, env.now
        sampling = SamplingParams(max_tokens=100, ignore_eos=True)
        request = Request(str(number), "m", range(first, first + 500), sampling)
        attempt = fleet.start_attempt(Send(f"r{number % replicas}", request, 0))
        yield attempt.ended
        assert attempt.first_token_s is not None
        first_s.append(attempt.first_token_s - arrived_s)
        between_s.append((env.now - attempt.first_token_s) / 99)

    def arrivals():
        for number in range(300):
            yield env.timeout(luck.expovariate(rate_per_s))
            env.process(one(number))

    env.process(arrivals())
    env.run(until=1000)
    assert len(first_s) == 300
    return SpeedTarget(sum(first_s) / 300, sum(between_s) / 300)


def test_the_advised_fleet_keeps_the_objective_in_the_simulator_and_a_third_of_it_does_not() -> None:
    work, wanted = MeanLoad(requests_per_s=4.0, prompt_tokens=500, output_tokens=100), SpeedTarget(0.5, 0.12)
    advice = advise(PRICES.machine("l4"), LLAMA, work, wanted)
    assert isinstance(advice, Advice)
    assert (advice.replicas, advice.limited_by) == (3, "time between tokens")
    enough, too_few = simulate(3, 4.0), simulate(1, 4.0)
    assert enough.ttft_s <= wanted.ttft_s
    assert enough.tpot_s <= wanted.tpot_s < too_few.tpot_s
