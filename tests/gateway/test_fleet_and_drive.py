"""Fleet and FleetBackend over scripted replicas: probes, counts, failover, and what closing sets free."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import pytest
from parity import virtual_time

from miniserve.clock import ManualClock
from miniserve.engine.scheduler import Counters
from miniserve.engine.stats import EngineStats
from miniserve.errors import InternalError, InvalidRequest, Overloaded, RequestError, UpstreamError, draining
from miniserve.gateway.drive import FleetBackend
from miniserve.gateway.fleet import Fleet
from miniserve.policies.bundle import Policies
from miniserve.policies.routing.balancer import LeastOutstanding
from miniserve.replica.wire import ReplicaReport
from miniserve.types import FinishReason, FleetView, ReplicaState, ReplicaView, Request, Send, TokenEvent

pytestmark = pytest.mark.anyio


@dataclass
class ScriptedUpstream:
    """Sends `tokens` tokens, then raises `error` if there is one; waits before its end while `hold` is set."""

    tokens: int = 3
    error: Exception | None = None
    state: ReplicaState = ReplicaState.READY
    answers: bool = True
    hold: bool = False
    probes: int = 0
    served: int = 0
    steps: int = 0
    open: int = 0
    closed: bool = False
    release: asyncio.Event = field(default_factory=asyncio.Event)

    async def generate(self, request: Request) -> AsyncGenerator[TokenEvent, None]:
        self.served += 1
        self.open += 1
        try:
            for i in range(self.tokens):
                if self.hold and i == self.tokens - 1:
                    await self.release.wait()
                last = i == self.tokens - 1 and self.error is None
                yield TokenEvent(request.request_id, (i,), FinishReason.LENGTH if last else None)
            if self.error is not None:
                raise self.error
        finally:
            self.open -= 1

    async def report(self, timeout_s: float) -> ReplicaReport:
        self.probes += 1
        if not self.answers:
            raise UpstreamError("no report")
        stats = EngineStats(Counters(steps=self.steps), running=2, waiting=3, blocks_total=4, blocks_used=1)
        return ReplicaReport(1, "tiny", self.state, 1.0, 1, 512, stats)

    async def close(self) -> None:
        self.closed = True


class TakesTheFirst:
    """A balancer that would always choose the same one."""

    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        return replicas[0].replica_id if replicas else None


def a_fleet(**options: Any) -> Fleet:
    return Fleet(ManualClock(5.0), **{"probe_interval_s": 0.001, **options})


def state_of(fleet: Fleet, replica_id: str = "a") -> ReplicaState:
    return {view.replica_id: view.state for view in fleet.view().replicas}[replica_id]


async def collect(backend: Any, request: Request) -> list[int]:
    return [token async for event in backend.generate(request) for token in event.token_ids]


async def test_a_replica_that_answers_is_ready_at_once_and_its_report_is_in_the_view() -> None:
    async with a_fleet() as fleet:
        await fleet.put("a", ScriptedUpstream())
        (view,) = fleet.view().replicas
    assert (view.state, view.running, view.queue_depth, view.kv_used_fraction) == (ReplicaState.READY, 2, 3, 0.25)
    assert view.as_of_s == 5.0


def test_a_replica_goes_down_after_so_many_misses_and_comes_back_with_an_answer() -> None:
    async def main() -> None:
        upstream = ScriptedUpstream()
        async with a_fleet(probe_interval_s=0.5, misses_until_down=3) as fleet:
            await fleet.put("a", upstream)
            upstream.answers = False
            await asyncio.sleep(1.4)
            assert state_of(fleet) is ReplicaState.READY, "two misses"
            await asyncio.sleep(0.5)
            assert state_of(fleet) is ReplicaState.DOWN
            upstream.answers = True
            await asyncio.sleep(0.5)
            assert state_of(fleet) is ReplicaState.READY

    virtual_time.run(main())


async def test_a_replica_that_refuses_because_it_drains_gets_nothing_more_and_nobody_notices(
    make_request: Callable[..., Request],
) -> None:
    """Its next probe would say so too, but half a second of requests comes before that."""
    leaving, staying = ScriptedUpstream(tokens=0, error=draining()), ScriptedUpstream()
    async with a_fleet(probe_interval_s=1000.0) as fleet:
        await fleet.put("a", leaving)
        await fleet.put("b", staying)
        backend = FleetBackend(fleet, TakesTheFirst())
        for i in range(6):
            assert await collect(backend, make_request(f"q{i}", 3)) == [0, 1, 2]
        assert (leaving.served, staying.served) == (1, 6)
        assert state_of(fleet, "a") is ReplicaState.DRAINING


async def test_a_replica_that_is_told_to_drain_stays_so_whatever_its_probes_say_until_its_last_answer_is_out(
    make_request: Callable[..., Request], until: Any
) -> None:
    upstream = ScriptedUpstream(hold=True)
    async with a_fleet() as fleet:
        await fleet.put("a", upstream)
        answer = asyncio.create_task(collect(FleetBackend(fleet, LeastOutstanding()), make_request("q", 3)))
        await until(lambda: upstream.open)
        fleet.drain("a")
        leaving = asyncio.create_task(fleet.remove_drained("a"))
        seen = upstream.probes
        await until(lambda: upstream.probes > seen + 2)
        assert state_of(fleet) is ReplicaState.DRAINING
        upstream.release.set()
        assert await answer == [0, 1, 2]
        await leaving
        assert fleet.view().replicas == ()
        assert upstream.closed


async def test_a_replica_that_was_ordered_is_seen_as_starting_and_forgotten_at_once_when_given_back() -> None:
    async with a_fleet() as fleet:
        fleet.announce("a", weight=2.0, region="eu")
        (view,) = fleet.view().replicas
        assert (view.state, view.weight, view.region) == (ReplicaState.STARTING, 2.0, "eu")
        await fleet.put("a", ScriptedUpstream())
        assert state_of(fleet) is ReplicaState.READY
        fleet.announce("b")
        fleet.drain("b")
        fleet.drain("nobody")
        await fleet.remove_drained("b")
        assert [one.replica_id for one in fleet.view().replicas] == ["a"]


def test_control_loops_are_called_in_turn_with_the_view_and_one_that_breaks_stops_no_other() -> None:
    async def main() -> None:
        seen: list[tuple[str, float, tuple[ReplicaView, ...]]] = []
        loop = asyncio.get_running_loop()

        def broken(now_s: float, view: FleetView) -> None:
            seen.append(("broken", now_s, view.replicas))
            raise ZeroDivisionError

        async with Fleet(loop.time, tick_interval_s=2.0, probe_interval_s=0.75) as fleet:
            fleet.add_tick(broken)
            fleet.add_tick(lambda now_s, view: seen.append(("sound", now_s, view.replicas)))
            await fleet.put("a", ScriptedUpstream(steps=7), weight=2.5, region="eu")
            await asyncio.sleep(5.0)
        assert [(who, when) for who, when, _ in seen] == [(who, when) for when in (2, 4) for who in ("broken", "sound")]
        (view,) = seen[-1][2]
        assert (view.weight, view.region, view.steps, view.as_of_s) == (2.5, "eu", 7, 3.75)

    virtual_time.run(main())


async def test_a_single_miss_changes_nothing(until: Any) -> None:
    upstream = ScriptedUpstream()
    async with a_fleet(misses_until_down=1_000_000) as fleet:
        await fleet.put("a", upstream)
        upstream.answers, before = False, upstream.probes
        await until(lambda: upstream.probes > before + 2)
        assert state_of(fleet) is ReplicaState.READY


@pytest.mark.parametrize("state", [ReplicaState.DRAINING, ReplicaState.DOWN])
async def test_a_replica_is_believed_about_itself(state: ReplicaState, until: Any) -> None:
    upstream = ScriptedUpstream()
    async with a_fleet() as fleet:
        await fleet.put("a", upstream)
        upstream.state = state
        await until(lambda: state_of(fleet) is state)
        assert fleet.view().ready() == ()


async def test_who_never_answered_is_not_ready(until: Any) -> None:
    async with a_fleet(misses_until_down=2) as fleet:
        await fleet.put("a", ScriptedUpstream(answers=False))
        assert state_of(fleet) is ReplicaState.STARTING
        assert not fleet.any_ready()
        await until(lambda: state_of(fleet) is ReplicaState.DOWN)


async def test_a_replaced_replica_and_at_the_end_all_are_closed_and_probed_no_more() -> None:
    old, new = ScriptedUpstream(), ScriptedUpstream()
    async with a_fleet() as fleet:
        await fleet.put("a", old)
        await fleet.put("a", new)
        assert (old.closed, new.closed) == (True, False)
        assert len(fleet.members()) == 1
    assert new.closed


async def test_outstanding_is_counted_while_a_request_runs(make_request: Callable[..., Request], until: Any) -> None:
    upstream = ScriptedUpstream(hold=True)
    async with a_fleet() as fleet:
        await fleet.put("a", upstream)
        backend = FleetBackend(fleet, LeastOutstanding())
        task = asyncio.create_task(collect(backend, make_request()))
        await until(lambda: fleet.view().replicas[0].outstanding == 1)
        upstream.release.set()
        assert await task == [0, 1, 2]
        assert fleet.view().replicas[0].outstanding == 0


async def test_load_goes_to_the_idle_one(make_request: Callable[..., Request], until: Any) -> None:
    upstreams = [ScriptedUpstream(hold=True), ScriptedUpstream(hold=True)]
    async with a_fleet() as fleet:
        await fleet.put("a", upstreams[0])
        await fleet.put("b", upstreams[1])
        backend = FleetBackend(fleet, LeastOutstanding())
        tasks = []
        for i in range(6):
            tasks.append(asyncio.create_task(collect(backend, make_request(f"q{i}"))))
            await until(lambda: sum(upstream.open for upstream in upstreams) == len(tasks))
        assert [upstream.open for upstream in upstreams] == [3, 3]
        for upstream in upstreams:
            upstream.release.set()
        await asyncio.gather(*tasks)


async def test_a_failure_before_the_first_token_is_invisible(make_request: Callable[..., Request]) -> None:
    bad, good = ScriptedUpstream(tokens=0, error=UpstreamError("refused")), ScriptedUpstream()
    async with a_fleet() as fleet:
        await fleet.put("bad", bad)
        await fleet.put("good", good)
        backend = FleetBackend(fleet, LeastOutstanding())
        answers = [await collect(backend, make_request(f"q{i}")) for i in range(20)]
    assert answers == [[0, 1, 2]] * 20
    assert bad.served > 0, "otherwise this proves nothing"


async def test_without_resuming_a_late_failure_reaches_the_client(
    make_request: Callable[..., Request],
) -> None:
    upstreams = [ScriptedUpstream(tokens=2, error=UpstreamError("cut")) for _ in range(2)]
    async with a_fleet() as fleet:
        for name, upstream in zip("ab", upstreams, strict=True):
            await fleet.put(name, upstream)
        seen: list[int] = []

        async def read() -> None:
            policies = Policies(LeastOutstanding(), resume=False)
            async for event in FleetBackend(fleet, policies).generate(make_request()):
                seen.extend(event.token_ids)

        with pytest.raises(UpstreamError, match="cut"):
            await read()
    assert seen == [0, 1]
    assert sum(upstream.served for upstream in upstreams) == 1


@pytest.mark.parametrize(
    ("error", "kind"), [(InvalidRequest("too long"), InvalidRequest), (RuntimeError("bug"), InternalError)]
)
async def test_an_error_that_another_replica_cannot_mend_is_raised(
    error: Exception, kind: type[RequestError], make_request: Callable[..., Request]
) -> None:
    async with a_fleet() as fleet:
        await fleet.put("a", ScriptedUpstream(tokens=0, error=error))
        with pytest.raises(kind) as raised:
            await collect(FleetBackend(fleet, LeastOutstanding()), make_request())
    assert "bug" not in str(raised.value)


async def test_no_ready_replica_is_503_with_a_time_to_wait(make_request: Callable[..., Request]) -> None:
    async with a_fleet() as fleet:
        backend = FleetBackend(fleet, LeastOutstanding())
        assert not backend.ready()
        with pytest.raises(Overloaded, match="no replica is ready") as refused:
            await collect(backend, make_request())
    assert refused.value.retry_after_s == 1.0


async def test_a_client_that_leaves_closes_the_replicas_stream(make_request: Callable[..., Request]) -> None:
    upstream = ScriptedUpstream(tokens=1000)
    async with a_fleet() as fleet:
        await fleet.put("a", upstream)
        backend = FleetBackend(fleet, LeastOutstanding())
        async with aclosing(backend.generate(make_request())) as events:
            await anext(events)
            assert upstream.open == 1
        assert upstream.open == 0
        assert fleet.view().replicas[0].outstanding == 0
        assert backend.door.inside == 0


async def test_draining_finishes_what_runs_and_refuses_the_rest(
    make_request: Callable[..., Request], until: Any
) -> None:
    upstream = ScriptedUpstream(hold=True)
    async with a_fleet() as fleet:
        await fleet.put("a", upstream)
        backend = FleetBackend(fleet, LeastOutstanding())
        running = asyncio.create_task(collect(backend, make_request("old")))
        await until(lambda: upstream.open)
        assert await backend.drain(timeout_s=0.0) is False
        assert not backend.ready()
        with pytest.raises(Overloaded, match="draining"):
            await collect(backend, make_request("new"))
        upstream.release.set()
        assert await backend.drain(timeout_s=20.0) is True
        assert await running == [0, 1, 2]


async def test_each_attempt_has_a_name_of_its_own(make_request: Callable[..., Request]) -> None:
    """A replica that is tried again may not have heard yet that the last attempt was given up."""
    async with a_fleet() as fleet:
        await fleet.put("a", ScriptedUpstream(tokens=1))
        attempts = [fleet.attempt(Send("a", make_request("q"), number)) for number in range(3)]
        names = [event.request_id for attempt in attempts async for event in attempt]
    assert names == ["q", "q.1", "q.2"]
