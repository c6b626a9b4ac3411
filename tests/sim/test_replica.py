"""A simulated replica: when tokens come, and what submitting, aborting, killing and pausing do to them."""

from __future__ import annotations

from random import Random

import pytest
import simpy
from simpy.events import EventPriority

from miniserve.config import CacheConfig, SchedulerConfig
from miniserve.engine.step_time import StepTimeModel
from miniserve.errors import InvalidRequest, Overloaded, UpstreamError
from miniserve.sim.replica import SimAttempt, SimReplica
from miniserve.sim.timers import Alarm
from miniserve.types import FinishReason, Request, SamplingParams

ONE_SECOND = StepTimeModel(1.0, 0.0, 0.0, 0.0, 0.0)


@pytest.fixture(params=[True, False], ids=["single_step", "jumping"])
def single_step(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def make(single_step: bool, *, speed: float = 1.0, num_blocks: int = 64, **config: object) -> SimReplica:
    scheduler = SchedulerConfig(**{"max_running": 4, "max_batch_tokens": 16, "turn_tokens": None, **config})  # type: ignore[arg-type]
    cache = CacheConfig(num_blocks, block_size=4)
    env = simpy.Environment()
    return SimReplica(env, "a", scheduler, cache, ONE_SECOND, max_model_len=64, speed=speed, single_step=single_step)


def ask(name: str = "r", prompt: int = 4, output: int = 5, first: int = 0) -> Request:
    return Request(name, "m", range(first, first + prompt), SamplingParams(max_tokens=output, ignore_eos=True))


def at(replica: SimReplica, when_s: float, *actions: object) -> None:
    replica.env.run(until=when_s)
    for action in actions:
        action()  # type: ignore[operator]


def ended_at(attempt: SimAttempt) -> float:
    env = attempt._replica.env
    env.run(until=attempt.ended)
    return float(env.now)


def test_a_token_comes_at_the_end_of_each_step(single_step: bool) -> None:
    replica = make(single_step)
    attempt = replica.submit(ask(output=5))
    seen = []
    for when_s in (0.5, 1.5, 2.5, 4.5):
        at(replica, when_s)
        seen.append(attempt.tokens_sent())
    assert seen == [0, 1, 2, 4]
    assert ended_at(attempt) == 5.0
    assert (attempt.first_token_s, attempt.tokens_sent()) == (1.0, 5)
    assert (attempt.finish_reason, attempt.error) == (FinishReason.LENGTH, None)
    assert attempt.ended.value is None
    assert replica.blocks.num_used == 0


def test_a_faster_replica_takes_shorter_steps(single_step: bool) -> None:
    assert ended_at(make(single_step, speed=4.0).submit(ask(output=8))) == 2.0


def test_a_request_that_comes_during_a_step_joins_the_next(single_step: bool) -> None:
    replica = make(single_step)
    first = replica.submit(ask("a", output=10))
    at(replica, 3.5)
    second = replica.submit(ask("b", output=2, first=100))
    assert (replica.num_running, replica.num_waiting) == (1, 1)
    assert ended_at(second) == 6.0
    assert second.first_token_s == 5.0
    assert ended_at(first) == 10.0


def test_what_comes_when_a_step_ends_is_known_to_the_next(single_step: bool) -> None:
    """The rule for ties: a replica's turn comes after everything else of the same instant."""
    replica = make(single_step)
    replica.submit(ask("a", output=10))
    at(replica, 3.0)
    assert ended_at(replica.submit(ask("b", output=1, first=100))) == 4.0


def test_requests_that_reach_an_idle_replica_together_start_together(single_step: bool) -> None:
    replica = make(single_step)
    both = [replica.submit(ask("a", output=1)), replica.submit(ask("b", output=1, first=100))]
    assert [ended_at(attempt) for attempt in both] == [1.0, 1.0]


def test_abort_frees_the_blocks_at_once_and_the_others_go_on(single_step: bool) -> None:
    replica = make(single_step)
    gone, stays = replica.submit(ask("a", output=10)), replica.submit(ask("b", output=10, first=100))
    at(replica, 4.5, gone.abort)
    assert gone.ended.triggered
    assert (gone.finish_reason, gone.tokens_sent()) == (FinishReason.ABORT, 4)
    assert replica.blocks.num_used == len(stays.sequence.block_table)
    replica.blocks.check_integrity(replica.sequences())
    gone.abort()  # twice is nothing
    assert ended_at(stays) == 10.0


def test_an_aborted_step_still_takes_its_time(single_step: bool) -> None:
    replica = make(single_step)
    replica.submit(ask("a", output=10)).abort()
    assert ended_at(replica.submit(ask("a", output=1))) == 1.0  # no step had begun
    again = replica.submit(ask("a", output=10))
    at(replica, 2.5, again.abort)
    assert ended_at(replica.submit(ask("a", output=1))) == 4.0


def test_a_killed_replica_loses_everything_and_starts_empty(single_step: bool) -> None:
    replica = make(single_step, max_running=1, max_batch_tokens=16)
    lost = [replica.submit(ask("a", output=10)), replica.submit(ask("b", output=10, first=100))]
    at(replica, 3.5)
    error = UpstreamError("the replica was killed")
    replica.kill(error)
    assert [attempt.error for attempt in lost] == [error, error]
    assert all(attempt.ended.triggered and attempt.finish_reason is None for attempt in lost)
    assert [attempt.tokens_sent() for attempt in lost] == [3, 0]
    assert (replica.num_running, replica.num_waiting, replica.blocks.num_used, replica.blocks.num_cached) == (0,) * 4
    assert replica.counters.finished[FinishReason.ERROR] == 2
    again = replica.submit(ask("a", output=2))
    assert ended_at(again) == 5.5
    assert replica.counters.prefix_hit_tokens == 0


def test_a_paused_replica_holds_everything_and_ends_its_step_when_it_goes_on(single_step: bool) -> None:
    replica = make(single_step)
    attempt = replica.submit(ask("a", output=5))
    at(replica, 2.5, replica.pause)
    at(replica, 20.0)
    assert (attempt.tokens_sent(), replica.num_running, attempt.ended.triggered) == (2, 1, False)
    late = replica.submit(ask("b", output=1, first=100))
    replica.resume()
    at(replica, 20.5)
    assert attempt.tokens_sent() == 3
    assert ended_at(late) == 21.0
    assert ended_at(attempt) == 22.0


def test_a_short_pause_delays_nothing(single_step: bool) -> None:
    replica = make(single_step)
    attempt = replica.submit(ask("a", output=5))
    at(replica, 2.25, replica.pause)
    at(replica, 2.75, replica.resume)
    assert ended_at(attempt) == 5.0


def test_a_request_sent_to_a_paused_replica_waits(single_step: bool) -> None:
    replica = make(single_step)
    replica.pause()
    attempt = replica.submit(ask(output=2))
    at(replica, 7.0)
    assert replica.num_waiting == 1
    replica.resume()
    assert ended_at(attempt) == 9.0


def test_the_first_token_can_be_waited_for_early_and_late(single_step: bool) -> None:
    replica = make(single_step)
    attempt = replica.submit(ask(prompt=20, output=3))  # two chunks of 16 and 4
    replica.env.run(until=attempt.first_token)
    assert replica.env.now == attempt.first_token_s == 2.0
    replica.env.run(until=attempt.ended)
    late = attempt.first_token
    assert late.triggered
    assert attempt.first_token is late


def test_a_resumed_request_counts_only_its_own_tokens(single_step: bool) -> None:
    replica = make(single_step)
    request = Request("r", "m", range(4), SamplingParams(max_tokens=5), resume_ids=range(4, 6))
    attempt = replica.submit(request)
    assert ended_at(attempt) == 3.0
    assert attempt.tokens_sent() == 3
    assert list(attempt.sequence.tokens) == list(range(9))


@pytest.mark.parametrize("prompt_ids", [range(10, 14), (10, 11, 12, 13)])
def test_made_up_tokens_count_on(single_step: bool, prompt_ids: range | tuple[int, ...]) -> None:
    replica = make(single_step)
    attempt = replica.submit(Request("r", "m", prompt_ids, SamplingParams(max_tokens=4)))
    ended_at(attempt)
    assert list(attempt.sequence.tokens) == list(range(10, 18))


def test_the_next_turn_of_a_conversation_finds_its_blocks(single_step: bool) -> None:
    replica = make(single_step)
    ended_at(replica.submit(ask("a", prompt=10, output=7)))
    ended_at(replica.submit(ask("b", prompt=20, output=1)))
    assert replica.counters.prefix_hit_tokens == 16  # of 16 computed tokens (the 17th was never fed back)
    ended_at(replica.submit(ask("c", prompt=20, output=1, first=1 << 20)))
    other = Request("d", "m", range(20), SamplingParams(max_tokens=1), tenant="alice")
    ended_at(replica.submit(other))
    assert replica.counters.prefix_hit_tokens == 16


def test_bad_requests_and_a_full_queue_are_refused(single_step: bool) -> None:
    replica = make(single_step, max_waiting=1)
    with pytest.raises(InvalidRequest, match="maximum context length is 64"):
        replica.submit(ask(prompt=64))
    replica.submit(ask("a"))
    with pytest.raises(Overloaded):
        replica.submit(ask("b"))


def test_an_alarm_rings_at_its_time_to_the_last_bit() -> None:
    """Where `now + (when - now)` is not `when`, which is often, the clock must show `when` all the same."""
    rng, differs = Random(1), 0
    for _ in range(1000):
        now_s, when_s = rng.random(), 1 + 60 * rng.random()
        env = simpy.Environment(now_s)
        Alarm(env, when_s, EventPriority(2), lambda _: None)
        env.run()
        assert env.now == when_s
        differs += now_s + (when_s - now_s) != when_s
    assert differs
