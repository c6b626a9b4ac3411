"""The live scaling loop in virtual time, over replicas that are paced: it grows, shrinks, and loses nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from parity import virtual_time
from parity.paced import PacedReplica
from parity.paced_fleet import DrillFleet
from parity.worlds import SPEC

from miniserve.control.autoscaler import Autoscaler, Reactive, ScalingAction, Scheduled
from miniserve.control.checked import Checked
from miniserve.control.scaling import Size
from miniserve.control.steady import Steady
from miniserve.errors import RequestError
from miniserve.gateway.drive import FleetBackend
from miniserve.gateway.fleet import Fleet
from miniserve.gateway.scaling import LiveScaling
from miniserve.policies.routing.balancer import LeastOutstanding
from miniserve.types import Drain, FleetView, ReplicaState, Request, SamplingParams, ScaleTo

COLD_START_S = 6.0


class PacedCrew:
    """Starts paced replicas in the time of a cold start, and lets them go as the supervisor does."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._starts: dict[str, asyncio.Task[None]] = {}
        self._ends: set[asyncio.Task[None]] = set()
        self.total = 0

    async def put(self, replica_id: str) -> None:
        self.total += 1
        replica = PacedReplica(
            SPEC.scheduler, SPEC.cache, SPEC.step_time, max_model_len=SPEC.max_model_len, turn=self.total
        )
        await self._fleet.put(replica_id, replica)

    def start(self, replica_id: str) -> None:
        async def cold_start() -> None:
            await asyncio.sleep(COLD_START_S)
            await self.put(replica_id)

        self._fleet.announce(replica_id)
        self._starts[replica_id] = asyncio.create_task(cold_start())

    def drain(self, replica_id: str) -> None:
        self._fleet.drain(replica_id)
        if (start := self._starts.pop(replica_id, None)) is not None:
            start.cancel()  # no effect on one that is over
        self._ends.add(asyncio.create_task(self._fleet.remove_drained(replica_id)))


def scaled_run(
    make: Callable[[], Autoscaler],
    demand: Sequence[tuple[float, float]],
    *,
    start: int = 2,
    period_s: float = 2.0,
) -> tuple[list[Size], list[RequestError | None], dict[str, ReplicaState]]:
    """Send requests: so many seconds at so many per second, in turn.

    Return the sizes, each request's error, and the last states.
    """

    async def main() -> tuple[list[Size], list[RequestError | None], dict[str, ReplicaState]]:
        loop = asyncio.get_running_loop()
        async with DrillFleet(loop.time) as fleet:
            crew, backend = PacedCrew(fleet), FleetBackend(fleet, LeastOutstanding())
            for i in range(start):
                await crew.put(f"m-{i}")
            await fleet.put("other-0", PacedReplica(SPEC.scheduler, SPEC.cache, SPEC.step_time, max_model_len=64))
            fleet.drain("other-0")  # of another pool; it takes no requests, and must stay
            scaling = LiveScaling(fleet, make(), crew, "m-", period_s=period_s, requests=backend.requests.total)
            fleet.add_tick(scaling)
            asked = [asyncio.create_task(ask(backend, f"q{i}", at_s)) for i, at_s in enumerate(arrivals(demand))]
            await asyncio.sleep(sum(seconds for seconds, _ in demand))
            errors = await asyncio.gather(*asked)
            states = {view.replica_id: view.state for view in fleet.view().replicas}
            return scaling.sizes, errors, states

    return virtual_time.run(main())


def arrivals(demand: Sequence[tuple[float, float]]) -> list[float]:
    times: list[float] = []
    begin_s = 0.0
    for seconds, rate_per_s in demand:
        times += [begin_s + i / rate_per_s for i in range(int(seconds * rate_per_s))]
        begin_s += seconds
    return times


async def ask(backend: FleetBackend, request_id: str, at_s: float) -> RequestError | None:
    await asyncio.sleep(at_s)
    request = Request(request_id, "m", range(40), SamplingParams(max_tokens=30, ignore_eos=True))
    try:
        tokens = [token async for event in backend.generate(request) for token in event.token_ids]
    except RequestError as error:
        return error
    assert len(tokens) == 30
    return None


def reactive() -> Autoscaler:
    return Steady(Checked(Reactive(target=4)), min_replicas=2, max_replicas=6, down_after_s=10.0)


def test_the_fleet_grows_with_the_load_shrinks_after_it_and_loses_nothing() -> None:
    sizes, errors, states = scaled_run(reactive, [(6, 6), (14, 24), (24, 3)])
    assert errors == [None] * len(errors)
    assert len(errors) > 400
    assert max(size.ready for size in sizes) >= 4
    assert (sizes[-1].ready, sizes[-1].starting, sizes[-1].draining) == (2, 0, 0)
    assert any(size.draining for size in sizes)
    assert sum(state is ReplicaState.READY for state in states.values()) == 2
    assert states["other-0"] is ReplicaState.DRAINING, "another pool's"


def test_the_same_run_is_the_same_to_the_bit() -> None:
    demand = [(4.0, 4.0), (6.0, 20.0), (8.0, 2.0)]
    assert scaled_run(reactive, demand)[0] == scaled_run(reactive, demand)[0]


def test_a_starting_replica_is_counted_and_given_back_at_once() -> None:
    sizes, _, states = scaled_run(lambda: Scheduled(plan=[(0, 2), (4, 5), (8, 2)], every_s=0), [(20, 2)])
    assert [(size.at_s, size.ready, size.starting) for size in sizes] == [(0, 2, 0), (4, 2, 3), (8, 2, 0)]
    assert set(states) == {"m-0", "m-1", "other-0"}


def test_a_drained_replica_finishes_what_it_runs_and_gets_nothing_new() -> None:
    class DrainFirst:
        def tick(self, now_s: float, view: FleetView) -> Sequence[ScalingAction]:
            return [Drain("m-0")] if now_s == 2.0 else []

    sizes, errors, states = scaled_run(DrainFirst, [(6, 8)])
    assert errors == [None] * len(errors)
    assert next(size for size in sizes if size.at_s == 2.0).draining == 1
    assert set(states) == {"m-1", "other-0"}


def test_an_autoscaler_that_breaks_its_contract_is_named_and_the_fleet_stays(caplog: pytest.LogCaptureFixture) -> None:
    class Nonsense:
        def tick(self, now_s: float, view: FleetView) -> Sequence[ScalingAction]:
            return [ScaleTo(-1)]

    with caplog.at_level(logging.ERROR):
        sizes, errors, _ = scaled_run(lambda: Checked(Nonsense()), [(5, 4)])
    assert errors == [None] * len(errors)
    assert [(size.ready, size.starting) for size in sizes] == [(2, 0)]
    assert "policy Nonsense failed on its tick at 2.0 s" in caplog.text
    assert "the number of replicas stays as it is" in caplog.text


def test_a_fleet_of_none_wakes_up_when_a_request_has_come() -> None:
    def none_at_first() -> Any:
        return Steady(Scheduled(plan=[(0, 0)]), min_replicas=0, down_after_s=0.0)

    sizes, errors, _ = scaled_run(none_at_first, [(30, 1)], start=0)
    assert isinstance(errors[0], RequestError), "nobody was there"
    assert max(size.ready for size in sizes) == 1
    assert errors[-1] is None or sizes[-1].ready == 0


def test_it_follows_the_version_that_takes_a_pools_place() -> None:
    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        async with DrillFleet(loop.time) as fleet:
            crew, prefix = PacedCrew(fleet), ["old-"]
            for replica_id in ("old-0", "old-1", "new-0", "new-3"):
                await crew.put(replica_id)
            scaling = LiveScaling(
                fleet, Scheduled(plan=[(0.0, 3)]), crew, lambda: prefix[0], period_s=2.0, requests=lambda: 0
            )
            fleet.add_tick(scaling)
            prefix[0] = "new-"
            await asyncio.sleep(2.5 + COLD_START_S)
            return [member.replica_id for member in fleet.members()]

    assert virtual_time.run(main()) == ["old-0", "old-1", "new-0", "new-3", "new-4"]
