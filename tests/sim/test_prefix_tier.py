"""The shared prefix tier: what it holds, what fetching costs, and hit rates that can be counted by hand."""

import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from miniserve.config import CacheConfig, SchedulerConfig
from miniserve.engine.step_time import StepTimeModel
from miniserve.errors import SetupError
from miniserve.hardware.spec import ReplicaSpec, TierSpec
from miniserve.sim.fleet import SimFleet
from miniserve.sim.prefix_tier import PrefixTier
from miniserve.sim.replica import SimReplica
from miniserve.types import Request, SamplingParams, Send

STEP = StepTimeModel(0.01, 0.0, 0.001, 0.0, 0.0)  # 10 ms a step and 1 ms per prefill token
SPEC = ReplicaSpec(STEP, SchedulerConfig(max_running=4, max_batch_tokens=512), CacheConfig(64, 16))


def a_tier(capacity_blocks: int = 1000, seconds_per_block: float = 0.001) -> PrefixTier:
    return PrefixTier(TierSpec(capacity_blocks, block_bytes=1000.0, bandwidth_bytes_per_s=1000.0 / seconds_per_block))


def a_fleet(tier: PrefixTier | None, replicas: int = 2, spec: ReplicaSpec = SPEC) -> tuple[simpy.Environment, SimFleet]:
    env = simpy.Environment()
    fleet = SimFleet(env, tier=tier)
    for _ in range(replicas):
        fleet.add(spec, ready=True)
    return env, fleet


def turn(session: int, prompt: int, answer: int, name: str, tenant: str = "") -> Request:
    first = session * 2**20
    sampling = SamplingParams(max_tokens=answer, ignore_eos=True)
    return Request(name, "m", range(first, first + prompt), sampling, tenant=tenant)


def ask(env: simpy.Environment, fleet: SimFleet, replica_id: str, request: Request) -> float:
    """Serve one request alone; return its time to first token."""
    start_s = env.now
    attempt = fleet.start_attempt(Send(replica_id, request, 0))
    env.run(until=attempt.ended)
    assert attempt.error is None
    assert attempt.first_token_s is not None
    return attempt.first_token_s - start_s


def hits(fleet: SimFleet) -> int:
    return sum(member.replica.counters.prefix_hit_tokens for member in fleet.members())


# ---- the store ----


def test_fetch_finds_the_longest_beginning_only() -> None:
    tier = a_tier()
    tier.put([1, 2, 4])
    assert tier.fetch([1, 2, 3, 4]) == 2
    assert tier.fetch([3, 4]) == 0
    assert (tier.asked_blocks, tier.fetched_blocks) == (6, 2)


def test_least_recently_used_leaves_first_and_the_end_of_a_text_before_its_start() -> None:
    tier = a_tier(capacity_blocks=4)
    tier.put([1, 2])
    tier.put([11, 12])
    assert tier.fetch([1, 2]) == 2
    tier.put([21])
    assert tier.fetch([11, 12]) == 1  # 12 left first
    tier.put([31, 32, 33, 34, 35, 36])
    assert len(tier) == 4
    assert tier.fetch([31, 32, 33, 34, 35, 36]) == 4
    assert tier.evicted_blocks == 1 + 4 + 2


def test_seconds_are_bytes_over_bandwidth_and_nothing_for_nothing() -> None:
    tier = PrefixTier(TierSpec(10, block_bytes=2e6, bandwidth_bytes_per_s=1e9, latency_s=0.001))
    assert tier.seconds(5) == pytest.approx(0.001 + 0.010)
    assert tier.seconds(0) == 0.0


@pytest.mark.parametrize("wrong", [(0, 1, 1, 0), (1, 0, 1, 0), (1, 1, 0, 0), (1, 1, 1, -1)])
def test_nonsense_is_refused(wrong: tuple[int, float, float, float]) -> None:
    with pytest.raises(SetupError, match="a prefix tier needs"):
        TierSpec(*wrong)


# ---- behind replicas ----


def test_the_second_turn_elsewhere_fetches_what_the_first_replica_computed() -> None:
    env, fleet = a_fleet(a_tier())
    assert ask(env, fleet, "r0", turn(1, 100, 28, "a")) == pytest.approx(0.01 + 0.100)
    # 127 tokens have keys and values (the last sampled one was never computed): 7 full blocks, 112 tokens.
    assert ask(env, fleet, "r1", turn(1, 160, 4, "b")) == pytest.approx(7 * 0.001 + 0.01 + (160 - 112) * 0.001)
    assert hits(fleet) == 112


def test_without_the_tier_the_other_replica_computes_everything_again() -> None:
    env, fleet = a_fleet(None)
    ask(env, fleet, "r0", turn(1, 100, 28, "a"))
    assert ask(env, fleet, "r1", turn(1, 160, 4, "b")) == pytest.approx(0.01 + 0.160)
    assert ask(env, fleet, "r0", turn(1, 160, 4, "c")) == pytest.approx(0.01 + 0.048)  # where it was
    assert hits(fleet) == 112


def test_what_the_own_cache_has_is_not_fetched() -> None:
    tier = a_tier()
    env, fleet = a_fleet(tier)
    ask(env, fleet, "r0", turn(1, 100, 28, "a"))
    assert ask(env, fleet, "r0", turn(1, 160, 4, "b")) == pytest.approx(0.01 + 0.048)
    assert tier.fetched_blocks == 0


def test_what_was_fetched_is_in_the_own_cache_from_then_on() -> None:
    tier = a_tier()
    env, fleet = a_fleet(tier)
    ask(env, fleet, "r0", turn(1, 100, 28, "a"))
    ask(env, fleet, "r1", turn(1, 160, 4, "b"))
    assert ask(env, fleet, "r1", turn(1, 163, 4, "c")) == pytest.approx(0.01 + 0.003)
    assert tier.fetched_blocks == 7


def test_prompt_blocks_can_be_fetched_while_their_sequence_still_runs() -> None:
    env, fleet = a_fleet(a_tier())
    fleet.start_attempt(Send("r0", turn(1, 64, 500, "long"), 0))
    env.run(until=1.0)
    assert ask(env, fleet, "r1", turn(1, 65, 1, "b")) == pytest.approx(4 * 0.001 + 0.01)


def test_tenants_do_not_share() -> None:
    tier = a_tier()
    env, fleet = a_fleet(tier)
    ask(env, fleet, "r0", turn(1, 160, 4, "a", tenant="x"))
    assert ask(env, fleet, "r1", turn(1, 160, 4, "b", tenant="y")) == pytest.approx(0.01 + 0.160)
    assert tier.fetched_blocks == 0
    assert ask(env, fleet, "r1", turn(1, 160, 4, "c", tenant="x")) == pytest.approx(0.01 + 0.009 + 0.016)


def test_a_crash_loses_the_own_cache_and_not_the_tier() -> None:
    env, fleet = a_fleet(a_tier(), replicas=1)
    ask(env, fleet, "r0", turn(1, 100, 28, "a"))
    fleet.crash("r0", restart_after_s=1.0)
    env.run(until=env.now + 2)
    assert ask(env, fleet, "r0", turn(1, 160, 4, "b")) == pytest.approx(0.007 + 0.01 + 0.048)


def test_everybody_in_the_batch_waits_for_a_fetch() -> None:
    env, fleet = a_fleet(a_tier(seconds_per_block=0.1))
    ask(env, fleet, "r0", turn(1, 160, 1, "a"))
    other = fleet.start_attempt(Send("r1", turn(2, 16, 100, "other"), 0))
    start_s = env.now
    env.run(until=start_s + 0.030)
    fetching = fleet.start_attempt(Send("r1", turn(1, 160, 1, "b"), 0))
    env.run(until=fetching.ended)
    assert env.now - start_s == pytest.approx(0.026 + 0.01 + 9 * 0.1 + 0.01 + 0.016)
    assert other.tokens_sent() == 3


def test_without_prefix_caching_the_tier_is_not_used() -> None:
    tier = a_tier()
    env, fleet = a_fleet(tier, spec=ReplicaSpec(STEP, SPEC.scheduler, CacheConfig(64, 16, prefix_caching=False)))
    for number, replica_id in enumerate(("r0", "r1")):
        ask(env, fleet, replica_id, turn(1, 160, 4, str(number)))
    assert len(tier) == tier.asked_blocks == 0


def test_hit_rate_of_a_small_trace_by_hand() -> None:
    """Three chats of three turns, dealt out round robin over three replicas: no turn finds its last one's replica."""

    def served(tier: PrefixTier | None) -> SimFleet:
        env, fleet = a_fleet(tier, replicas=3)
        for n, (prompt, chat) in enumerate((prompt, chat) for prompt in (40, 90, 140) for chat in range(3)):
            # turn t of chat c goes to replica (t + c) mod 3, so that each turn of a chat is served elsewhere
            ask(env, fleet, f"r{(n // 3 + chat) % 3}", turn(chat, prompt, 20, str(n)))
        return fleet

    with_tier, without = served(a_tier()), served(None)
    # A turn of p prompt tokens and 20 of answer leaves (p + 19) // 16 full blocks: 3 and then 6.
    assert hits(with_tier) == 3 * (3 + 6) * 16
    assert hits(without) == 0
    asked = sum(member.replica.counters.prefix_query_tokens for member in with_tier.members())
    assert hits(with_tier) / asked == pytest.approx(432 / (3 * (40 + 90 + 140)))


CALLS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1), st.integers(0, 1), st.integers(1, 300)), max_size=12)


@settings(max_examples=60, deadline=None)
@given(calls=CALLS, capacity=st.sampled_from([3, 20, 1000]), answer=st.integers(1, 200))
def test_jumping_over_steps_changes_nothing(calls, capacity, answer) -> None:
    def run(single_step: bool) -> tuple[list[float], int, int]:
        env, tier = simpy.Environment(), a_tier(capacity, seconds_per_block=0.00137)
        fleet = SimFleet(env, tier=tier, single_step=single_step)
        for _ in range(2):
            fleet.add(ReplicaSpec(STEP, SPEC.scheduler, CacheConfig(40, 16)), ready=True)
        ends: list[float] = []

        def one(number: int, at_s: float, where: int, session: int, prompt: int):
            yield env.timeout(at_s)
            attempt = fleet.start_attempt(Send(f"r{where}", turn(session, prompt, answer, str(number)), 0))
            yield attempt.ended
            ends.append(env.now)

        for number, call in enumerate(calls):
            env.process(one(number, *call))
        env.run(until=100)
        for member in fleet.members():
            assert isinstance(member.replica, SimReplica)
            assert member.replica.blocks.num_used == 0
            member.replica.blocks.check_integrity([])
        assert len(tier) <= capacity
        return ends, hits(fleet), tier.fetched_blocks

    assert run(single_step=True) == run(single_step=False)
