"""A real retry storm, made by `load`'s clients over HTTP, and cured by their budget.

One replica whose steps take longer the more sequences they hold. For a few seconds it is slower still: everybody loses
patience at the same time. Clients that ask again at once keep it full of requests that cannot be answered in time, long
after the cause has gone; clients that pay for retries out of a budget let it recover.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from parity.paced import PacedReplica

from miniserve.clients.load import Habits, LoadRun
from miniserve.clock import monotonic
from miniserve.config import CacheConfig, SchedulerConfig
from miniserve.engine.step_time import StepTimeModel
from miniserve.gateway.fleet import Fleet
from miniserve.observe.outcomes import Outcomes
from miniserve.policies.recovery.retry import NaiveRetry
from miniserve.policies.recovery.retry_budget import Budget, RetryBudget
from miniserve.processes.http_server import bind
from miniserve.processes.stack import GatewayOptions, running_gateway
from miniserve.types import Request, SamplingParams

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Storm:
    """Times in seconds. A request alone takes 0.4 s; with more than nine beside it, longer than anyone waits."""

    rate_per_s: float = 3.5  # of at most 5
    timeout_s: float = 2.0
    slow_from_s: float = 5.0
    slow_to_s: float = 11.0
    over_s: float = 17.0  # from here on a service that recovers has recovered
    end_s: float = 32.0
    slowness: float = 5.0


async def run(folder: Path, storm: Storm, budget: Budget | None) -> Outcomes:
    """Return what the clients saw; `budget` None: they ask again without limit."""
    pace = StepTimeModel(0.02, 0.02, 0.0, 0.0, 0.0)
    scheduler = SchedulerConfig(max_running=64)
    async with Fleet(monotonic) as fleet:
        replica = PacedReplica(scheduler, CacheConfig(), pace, max_model_len=512, version="tiny")
        await fleet.put("r0", replica)
        async with running_gateway(GatewayOptions("tiny", folder), fleet, bind(0)) as gateway:
            loop = asyncio.get_running_loop()
            loop.call_later(storm.slow_from_s, setattr, replica, "speed", 1 / storm.slowness)
            loop.call_later(storm.slow_to_s, setattr, replica, "speed", 1.0)
            count = round(storm.end_s * storm.rate_per_s)
            requests = (
                Request(
                    f"q{i}",
                    "tiny",
                    range(i << 20, (i << 20) + 3),
                    SamplingParams(max_tokens=10),
                    arrived_s=i / storm.rate_per_s,
                )
                for i in range(count)
            )
            habits = Habits(storm.timeout_s, NaiveRetry(max_attempts=12), budget)
            result = await LoadRun(gateway.url, "tiny", monotonic, habits=habits).run(requests)
        await replica.close()
    return result.outcomes


def served_share(outcomes: Outcomes, start_s: float, end_s: float) -> float:
    """Return how many of those who came in that time were answered at their first try."""
    came = outcomes.arrived_between(start_s, end_s)
    return float((came.served & (came.attempts == 1)).mean())


@pytest.mark.full
async def test_a_storm_outlives_its_cause_and_a_budget_ends_it(
    tiny_folder: Path, record_property: Callable[[str, object], None]
) -> None:
    storm = Storm()
    shares = {}
    for name, budget in (("naive", None), ("budget", RetryBudget(ratio=0.1, floor_per_s=0.1))):
        outcomes = await run(tiny_folder, storm, budget)
        shares[name] = served_share(outcomes, storm.over_s, storm.end_s)
        record_property(f"{name}_before", round(served_share(outcomes, 0.0, storm.slow_from_s - storm.timeout_s), 3))
        record_property(f"{name}_after", round(shares[name], 3))
        record_property(f"{name}_tries_per_request", round(float(outcomes.attempts.mean()), 2))
    assert shares["naive"] < 0.3
    assert shares["budget"] > 0.9
