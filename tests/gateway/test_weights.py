"""Weights that follow the measured speed of each replica."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

import pytest

from miniserve.clock import ManualClock
from miniserve.engine.scheduler import Counters
from miniserve.engine.stats import EngineStats
from miniserve.gateway.fleet import Fleet
from miniserve.gateway.weights import PERIOD_S, SpeedWeights
from miniserve.replica.wire import ReplicaReport
from miniserve.types import ReplicaState, Request, TokenEvent

pytestmark = pytest.mark.anyio


@dataclass
class Counted:
    """Reports so many steps in so many busy seconds."""

    pid: int = 1
    steps: int = 0
    busy_s: float = 0.0

    async def generate(self, request: Request) -> AsyncGenerator[TokenEvent, None]:
        raise NotImplementedError
        yield

    async def report(self, timeout_s: float) -> ReplicaReport:
        stats = EngineStats(Counters(steps=self.steps), busy_s=self.busy_s)
        return ReplicaReport(self.pid, "m", ReplicaState.READY, 1.0, 1, 512, stats)

    async def close(self) -> None:
        pass


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_who_steps_faster_weighs_more_and_who_is_idle_keeps_its_weight() -> None:
    clock = ManualClock(0.0)
    fast, slow, idle = Counted(), Counted(), Counted()
    async with Fleet(clock, probe_interval_s=1000.0) as fleet:
        weights = SpeedWeights(fleet)

        async def after_a_period() -> dict[str, float]:
            for name, upstream in (("fast", fast), ("slow", slow), ("idle", idle)):
                await fleet.put(name, upstream, weight=fleet_weight(fleet, name))
            clock.advance(PERIOD_S)
            weights(clock(), fleet.view())
            return {view.replica_id: view.weight for view in fleet.view().replicas}

        assert await after_a_period() == {"fast": 1.0, "slow": 1.0, "idle": 1.0}, "one look shows no speed"
        fast.steps, fast.busy_s = 120, 3.0
        slow.steps, slow.busy_s = 60, 3.0
        idle.steps, idle.busy_s = 1, 0.01
        assert await after_a_period() == {"fast": pytest.approx(4 / 3), "slow": pytest.approx(2 / 3), "idle": 1.0}
        fast.pid, fast.steps, fast.busy_s = 2, 0, 0.0
        assert (await after_a_period())["fast"] == pytest.approx(4 / 3), "a new process has shown nothing yet"


def fleet_weight(fleet: Fleet, replica_id: str) -> float:
    return next((view.weight for view in fleet.view().replicas if view.replica_id == replica_id), 1.0)
