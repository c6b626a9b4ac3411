"""The contract of a driver, for both: what becomes of each effect, to the second, and that nothing is left behind.

The stories here are written by hand, so that nothing is decided but what the test decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import simpy
from parity import virtual_time
from parity.paced_fleet import DrillFleet, PacedReplicas
from parity.worlds import SPEC

from miniserve.engine.step_time import StepTimeModel
from miniserve.errors import (
    DeadlineExceeded,
    InternalError,
    NoFirstToken,
    PolicyError,
    RequestError,
    UpstreamError,
    broke_off,
    cut_off,
    deadline_passed,
    left_the_fleet,
    no_connection,
    no_first_token,
)
from miniserve.faults import AttemptFault, FaultPlan, ReplicaEvent, ReplicaFault
from miniserve.gateway.drive import FleetBackend
from miniserve.gateway.fleet import Fleet
from miniserve.policies.bundle import Policies
from miniserve.policies.dispatch import ClientLeft, cancel
from miniserve.policies.routing.balancer import LeastOutstanding
from miniserve.sim.drive import run as drive
from miniserve.sim.fleet import SimFleet
from miniserve.types import (
    AttemptResult,
    Clock,
    Effect,
    FinishReason,
    Hedge,
    Outcome,
    Request,
    SamplingParams,
    Send,
    Sleep,
    Story,
)

REQUEST = Request("q", "m", range(100, 108), SamplingParams(max_tokens=4, ignore_eos=True))
TENTH = replace(SPEC, step_time=StepTimeModel(0.1, 0.0, 0.0, 0.0, 0.0))  # every step takes 0.1 s: 4 tokens, 0.4 s
SPECS = {"fast": TENTH, "slow": replace(TENTH, speed=0.25)}

Tell = Callable[[Clock], Story]


@dataclass
class Told:
    """What a driver made of a story."""

    results: list[AttemptResult | None] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    left_behind: int = 0  # blocks and outstanding requests, half a second after the end
    raised: BaseException | None = None

    @property
    def result(self) -> AttemptResult:
        (only,) = self.results
        assert only is not None
        return only


class Faults:
    """What befalls each replica's attempts, and the replicas."""

    def __init__(self, *events: ReplicaEvent, **faults: AttemptFault) -> None:
        self._events = events
        self._faults = faults

    def attempt_fault(self, replica_id: str, request_id: str, attempt: int) -> AttemptFault | None:
        return self._faults.get(replica_id)

    def request_fault(self, request_id: str) -> AttemptFault | None:
        return None

    def replica_events(self) -> tuple[ReplicaEvent, ...]:
        return self._events


NO_FAULTS = Faults()


def simulated(tell: Tell, faults: FaultPlan = NO_FAULTS, leaves_s: float | None = None) -> Told:
    env, told = simpy.Environment(), Told()
    fleet = SimFleet(env, faults=faults)
    for replica_id, spec in SPECS.items():
        fleet.add(spec, replica_id, ready=True)

    def client() -> Generator[simpy.Event, Any, None]:
        try:
            yield from drive(env, noted(tell, told)(lambda: float(env.now)), fleet)
        except (simpy.Interrupt, PolicyError) as error:
            told.raised = error

    serving = env.process(client())
    if leaves_s is not None:
        env.run(leaves_s)
        serving.interrupt()
    env.run(serving)
    env.run(env.now + 0.5)
    told.left_behind = sum(member.outstanding + member.replica.blocks.num_used for member in fleet.members())
    return told


def live(tell: Tell, faults: FaultPlan = NO_FAULTS, leaves_s: float | None = None) -> Told:
    return virtual_time.run(_live(tell, faults, leaves_s))


async def _live(tell: Tell, faults: FaultPlan, leaves_s: float | None) -> Told:
    told, loop = Told(), asyncio.get_running_loop()
    async with DrillFleet(loop.time, faults=faults) as fleet, PacedReplicas(fleet, SPECS, faults) as paced:
        backend = _Telling(fleet, noted(tell, told))
        with suppress(TimeoutError):
            async with asyncio.timeout(leaves_s), aclosing(backend.generate(REQUEST)) as events:
                try:
                    async for _ in events:
                        pass
                except RequestError as error:
                    told.raised = error
        await asyncio.sleep(0.5)
        told.left_behind = sum(member.outstanding for member in fleet.members())
        told.left_behind += sum(replica.blocks.num_used for replica in paced.replicas.values())
        assert backend.door.inside == 0
    return told


class _Telling(FleetBackend):
    """A backend that performs a given story."""

    def __init__(self, fleet: Fleet, tell: Tell) -> None:
        super().__init__(fleet, Policies(LeastOutstanding()))
        self._tell = tell
        self._clock = fleet.clock

    def _story(self, request: Request) -> Story:
        return self._tell(self._clock)


def noted(tell: Tell, told: Told) -> Tell:
    """Keep what the story is told, and when."""

    def telling(clock: Clock) -> Story:
        story, result = tell(clock), None
        try:
            while True:
                try:
                    effect = story.send(result)
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]
                try:
                    result = yield effect
                except ClientLeft as left:
                    cancel(story, left.token_ids)
                    raise
                told.results.append(result)
                told.times_s.append(clock())
        finally:
            story.close()

    return telling


def asking(*effects: Effect) -> Tell:
    def tell(clock: Clock) -> Story:
        for effect in effects:  # noqa: UP028  a tuple cannot be sent an answer
            yield effect
        return Outcome("q", FinishReason.LENGTH)

    return tell


def send(replica_id: str, **limits: float) -> Send:
    return Send(replica_id, REQUEST, 0, **limits)


both_worlds = pytest.mark.parametrize("world", [simulated, live])
World = Callable[..., Told]


def about(seconds: float) -> Any:
    return pytest.approx(seconds, abs=1e-9)


@both_worlds
def test_a_send_is_answered_with_its_tokens_and_times(world: World) -> None:
    told = world(asking(send("fast")))
    result = told.result
    assert (result.replica_id, result.finish_reason, result.error) == ("fast", FinishReason.LENGTH, None)
    assert list(result.token_ids) == [108, 109, 110, 111]
    assert (result.started_s, result.first_token_s, result.ended_s) == (0.0, about(0.1), about(0.4))
    assert told.left_behind == 0


@both_worlds
def test_a_sleep_takes_its_time_and_is_answered_with_nothing(world: World) -> None:
    told = world(asking(Sleep(1.5), Sleep(0.25)))
    assert told.results == [None, None]
    assert told.times_s == [1.5, 1.75]


@both_worlds
def test_a_resumed_request_goes_on_after_what_was_sent(world: World) -> None:
    told = world(asking(Send("fast", replace(REQUEST, resume_ids=range(108, 110)), 1)))
    assert list(told.result.token_ids) == [110, 111]


@both_worlds
def test_an_attempt_without_a_first_token_in_time_is_cut_off(world: World) -> None:
    told = world(asking(send("slow", first_token_within_s=0.3)))
    assert type(told.result.error) is NoFirstToken
    assert told.result.error.code == "no_first_token"
    assert told.result.ended_s == 0.3
    assert told.left_behind == 0


@both_worlds
def test_who_may_wait_on_is_asked_again_each_time_that_has_passed(world: World) -> None:
    for answers, ends_s in (([0.15, 0.2], None), ([0.05, None], 0.15), ([0.05, 0.02, None], 0.17)):
        more = iter(answers)
        told = world(
            asking(replace(send("slow", first_token_within_s=0.1), wait_on=lambda now_s, more=more: next(more)))
        )
        assert told.result.ok == (ends_s is None)
        if ends_s is not None:
            assert (type(told.result.error), told.result.ended_s) == (NoFirstToken, about(ends_s))


@both_worlds
def test_waiting_on_does_not_outlast_the_deadline(world: World) -> None:
    told = world(asking(replace(send("slow", first_token_within_s=0.05, within_s=0.15), wait_on=lambda now_s: 0.07)))
    assert (type(told.result.error), told.result.ended_s) == (DeadlineExceeded, about(0.15))


@both_worlds
def test_the_limit_on_the_first_token_ends_with_it(world: World) -> None:
    told = world(asking(send("fast", first_token_within_s=0.15)))
    assert told.result.ok


@both_worlds
def test_a_passed_deadline_cuts_off_whatever_has_been_sent(world: World) -> None:
    told = world(asking(send("fast", within_s=0.25)))
    assert isinstance(told.result.error, DeadlineExceeded)
    assert list(told.result.token_ids) == [108, 109]
    assert told.result.ended_s == 0.25
    assert told.left_behind == 0


@both_worlds
@pytest.mark.parametrize(("limit", "kind"), [("first_token_within_s", UpstreamError), ("within_s", DeadlineExceeded)])
def test_a_token_at_the_very_instant_of_a_limit_is_too_late(world: World, limit: str, kind: type[Exception]) -> None:
    told = world(asking(send("fast", **{limit: 0.1})))
    assert isinstance(told.result.error, kind)
    assert list(told.result.token_ids) == []


@both_worlds
def test_a_refusal_and_a_cut_stream_are_failures_of_the_attempt(world: World) -> None:
    faults = Faults(fast=AttemptFault(0, 503), slow=AttemptFault(2, 502))
    told = world(asking(send("fast"), send("slow")), faults)
    refused, cut = told.results
    assert refused is not None
    assert cut is not None
    assert getattr(refused.error, "status", None) == 503
    assert (refused.started_s, refused.ended_s) == (0.0, 0.0)
    assert getattr(cut.error, "status", None) == 502
    assert list(cut.token_ids) == [108, 109]
    assert cut.ended_s == about(0.8)
    assert told.left_behind == 0


@both_worlds
def test_a_crash_breaks_the_attempt_and_refuses_the_next(world: World) -> None:
    told = world(asking(send("fast"), send("fast")), Faults(ReplicaEvent(0.25, "fast", ReplicaFault.CRASH)))
    broken, refused = told.results
    assert broken is not None
    assert refused is not None
    assert (list(broken.token_ids), broken.ended_s) == ([108, 109], 0.25)
    assert isinstance(refused.error, UpstreamError)
    assert refused.error.code == "unreachable"


# --- failures: the same class, code and message in both worlds ------------------------------------------------------


def suffering(kind: ReplicaFault, at_s: float, replica_id: str = "fast") -> Faults:
    return Faults(ReplicaEvent(at_s, replica_id, kind))


@pytest.mark.parametrize(
    ("event", "effect", "faults", "error"),
    [
        ("has left the fleet", send("gone"), NO_FAULTS, left_the_fleet("gone")),
        ("crashed before", send("fast"), suffering(ReplicaFault.CRASH, 0.0), no_connection()),
        ("crashes before its first token", send("slow"), suffering(ReplicaFault.CRASH, 0.2, "slow"), broke_off()),
        ("crashes after its first token", send("fast"), suffering(ReplicaFault.CRASH, 0.25), broke_off()),
        ("is cut off from the network", send("fast"), suffering(ReplicaFault.PARTITION, 0.25), cut_off()),
        ("was cut off before", send("fast"), suffering(ReplicaFault.PARTITION, 0.0), no_connection()),
        ("brings no token in time", send("slow", first_token_within_s=0.3), NO_FAULTS, no_first_token(0.3)),
        ("is not done at the deadline", send("fast", within_s=0.25), NO_FAULTS, deadline_passed()),
        ("hangs until the deadline", send("fast", within_s=2.0), suffering(ReplicaFault.HANG, 0.05), deadline_passed()),
        ("refuses", send("fast"), Faults(fast=AttemptFault(0, 503)), AttemptFault(0, 503).error()),
        ("breaks off", send("fast"), Faults(fast=AttemptFault(2, 502)), AttemptFault(2, 502).error()),
        ("has a bug", send("fast"), Faults(fast=AttemptFault(2, 500)), AttemptFault(2, 500).error()),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
@both_worlds
def test_a_replica_that(world: World, event: str, effect: Send, faults: FaultPlan, error: RequestError) -> None:
    found = world(asking(Sleep(0.01), effect), faults).results[1]
    assert found is not None, event
    assert (type(found.error), found.error.args) == (type(error), error.args), event


# --- hedges --------------------------------------------------------------------------------------------------------


def hedge(first: str, after_s: float, second: str | None, **limits: float) -> Hedge:
    return Hedge(send(first, **limits), after_s, lambda: None if second is None else send(second))


@both_worlds
def test_a_first_token_in_time_needs_no_second_attempt(world: World) -> None:
    def never() -> Send:
        raise AssertionError("asked for a second attempt that nobody needs")

    told = world(asking(Hedge(send("fast"), 0.2, never)))
    assert told.result.ok
    assert told.result.losers == ()


@both_worlds
def test_the_second_starts_when_the_first_is_late_and_the_first_to_bring_a_token_wins(world: World) -> None:
    told = world(asking(hedge("slow", 0.2, "fast")))
    winner, (loser,) = told.result, told.result.losers
    assert (winner.replica_id, winner.started_s, winner.first_token_s) == ("fast", 0.2, about(0.3))
    assert winner.ended_s == about(0.6)
    assert (loser.replica_id, loser.finish_reason, loser.error, loser.token_ids) == ("slow", None, None, ())
    assert (loser.started_s, loser.ended_s) == (0.0, about(0.3))
    assert told.left_behind == 0


@both_worlds
def test_the_first_may_still_win(world: World) -> None:
    told = world(asking(hedge("slow", 0.35, "fast")))
    assert told.result.replica_id == "slow"
    assert [loser.replica_id for loser in told.result.losers] == ["fast"]
    assert told.result.ended_s == about(1.6)


@both_worlds
def test_without_a_second_the_first_goes_on(world: World) -> None:
    told = world(asking(hedge("slow", 0.2, None)))
    assert told.result.ok
    assert told.result.losers == ()


@both_worlds
def test_a_failure_before_the_hedge_is_the_answer(world: World) -> None:
    told = world(asking(hedge("slow", 0.2, "fast")), Faults(slow=AttemptFault(0, 500)))
    assert isinstance(told.result.error, InternalError)
    assert told.result.ended_s == 0.0


@both_worlds
def test_a_hedge_at_once_starts_both_whatever_becomes_of_the_first(world: World) -> None:
    told = world(asking(hedge("slow", 0.0, "fast")), Faults(slow=AttemptFault(0, 500)))
    assert told.result.ok
    assert [type(loser.error) for loser in told.result.losers] == [InternalError]


@both_worlds
def test_when_one_lane_fails_the_other_is_waited_for(world: World) -> None:
    told = world(asking(hedge("slow", 0.2, "fast")), Faults(fast=AttemptFault(0, 503)))
    assert told.result.ok
    assert told.result.replica_id == "slow"
    assert [(loser.replica_id, loser.ended_s) for loser in told.result.losers] == [("fast", 0.2)]


@both_worlds
def test_when_both_fail_the_last_failure_is_the_answer(world: World) -> None:
    faults = Faults(ReplicaEvent(0.25, "slow", ReplicaFault.CRASH), fast=AttemptFault(0, 503))
    told = world(asking(hedge("slow", 0.2, "fast")), faults)
    assert told.result.replica_id == "slow"
    assert isinstance(told.result.error, UpstreamError)
    assert [type(loser.error).__name__ for loser in told.result.losers] == ["Overloaded"]
    assert told.left_behind == 0


@both_worlds
def test_a_winner_whose_stream_is_cut_is_a_failure_with_tokens(world: World) -> None:
    told = world(asking(hedge("slow", 0.2, "fast")), Faults(fast=AttemptFault(2, 502)))
    assert list(told.result.token_ids) == [108, 109]
    assert isinstance(told.result.error, UpstreamError)
    assert told.left_behind == 0


# --- leaving -------------------------------------------------------------------------------------------------------


@both_worlds
@pytest.mark.parametrize("effect", [Sleep(5.0), send("slow"), send("slow", within_s=5.0), hedge("slow", 0.1, "fast")])
def test_a_client_that_leaves_ends_what_runs_for_it_and_closes_its_story(world: World, effect: Effect) -> None:
    left: list[ClientLeft] = []

    def tell(clock: Clock) -> Story:
        try:
            yield effect
        except ClientLeft as error:
            left.append(error)
            raise
        return Outcome("q")

    told = world(tell, leaves_s=0.15)
    assert len(left) == 1
    assert told.results == []
    assert told.left_behind == 0


@both_worlds
@pytest.mark.parametrize("effect", [send("fast"), hedge("slow", 0.05, "fast")])
def test_a_story_whose_client_left_learns_what_had_come(world: World, effect: Effect) -> None:
    tokens: list[int] = []

    def tell(clock: Clock) -> Story:
        try:
            yield effect
        except ClientLeft as left:
            tokens.extend(left.token_ids)
            raise
        return Outcome("q")

    world(tell, leaves_s=0.27)
    assert tokens == [108, 109]


# --- policies that break their contract -----------------------------------------------------------------------------


def test_in_the_simulation_a_broken_policy_ends_the_run_by_name() -> None:
    assert "Mine failed on request q" in str(simulated(breaking).raised)


def test_a_live_gateway_names_it_in_its_log_and_tells_the_client_nothing(caplog: pytest.LogCaptureFixture) -> None:
    raised = live(breaking).raised
    assert isinstance(raised, InternalError)
    assert "Mine" not in str(raised)
    assert "Mine failed on request q" in caplog.text


@pytest.mark.parametrize("world", [simulated, live])
def test_a_policy_that_breaks_while_a_hedge_runs_leaves_nothing_behind(world: World) -> None:
    def second() -> Send:
        raise PolicyError("policy Mine failed on request q")

    told = world(asking(Hedge(send("slow"), 0.1, second)))
    assert told.raised is not None
    assert told.left_behind == 0


def breaking(clock: Clock) -> Story:
    yield Sleep(0.5)
    raise PolicyError("policy Mine failed on request q: it raised ZeroDivisionError")
