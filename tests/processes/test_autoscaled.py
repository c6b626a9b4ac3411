"""A fleet that scales, measured: doubled load makes first tokens late, another replica brings them back, and goes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from miniserve.clock import monotonic
from miniserve.control.autoscaler import Reactive
from miniserve.control.steady import Steady
from miniserve.processes.http_server import bind
from miniserve.processes.pools import Pool
from miniserve.processes.stack import GatewayOptions, Scaling, running_pools
from miniserve.replica.pace import TOO_MANY_OVERRUNS

pytestmark = pytest.mark.anyio

PACE = "base_s=0.01,per_decode_row_s=0.001,per_prefill_token_s=0.0006"  # so one replica takes about 7 requests a second
PROMPT_TOKENS = 200
USUAL_PER_S, DOUBLED_PER_S = 4.0, 8.0
TARGET_S = 0.8  # of the p95 of the time to first token
MOST_S = 600.0


class Demand:
    """Requests at a rate that can be changed, whoever is still waiting; notes when each began and its first token."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.per_s = USUAL_PER_S
        self.ttft_s: list[tuple[float, float]] = []  # (when it was asked, how long its first token took)
        self.failed: list[str] = []
        self._client = client
        self._numbers = itertools.count()

    async def flow(self) -> None:
        """Ask until cancelled, and then wait for every answer."""
        async with asyncio.TaskGroup() as group:
            try:
                while True:
                    group.create_task(self._ask(next(self._numbers)))
                    await asyncio.sleep(1 / self.per_s)
            except asyncio.CancelledError:
                asyncio.current_task().uncancel()  # type: ignore[union-attr]

    async def _ask(self, number: int) -> None:
        began_s = monotonic()
        prompt = [(number * 7919 + i) % 250 for i in range(PROMPT_TOKENS)]  # no two begin alike: nothing is cached
        body = {"model": "tiny", "prompt": prompt, "max_tokens": 4, "ignore_eos": True, "stream": True}
        async with self._client.stream("POST", "/v1/completions", json=body) as response:
            first_s, lines = 0.0, []
            async for line in response.aiter_lines():
                first_s = first_s or monotonic() - began_s
                lines.append(line)
        if response.status_code != httpx.codes.OK or "data: [DONE]" not in lines:
            self.failed.append(f"{response.status_code}: {lines[:1]}")
        self.ttft_s.append((began_s, first_s))

    def p95_s(self, since_s: float, until_s: float) -> float:
        """Return the p95 of the time to first token of those that were asked in between."""
        return float(np.percentile([took for began, took in self.ttft_s if since_s <= began < until_s], 95))


@pytest.mark.full
async def test_first_tokens_are_late_under_doubled_load_until_another_replica_is_there(
    tiny_folder: Path, record_property: Callable[[str, object], None], until_true: Callable[..., Awaitable[float]]
) -> None:
    autoscaler = Steady(Reactive(target=3), min_replicas=1, max_replicas=3, down_after_s=20.0)
    pool = Pool("tiny", tiny_folder, "1", pace=PACE, arguments=("--offline", "--threads", "1"))
    options = GatewayOptions("tiny@1", tiny_folder)
    async with (
        running_pools(options, [pool], bind(0), scaling=[Scaling(autoscaler, "tiny@1", 2.0)]) as stack,
        httpx.AsyncClient(base_url=stack.url, timeout=120.0, trust_env=False) as client,
    ):
        demand, fleet = Demand(client), stack.gateway.fleet
        flowing = asyncio.create_task(demand.flow())
        began_s = monotonic()
        await asyncio.sleep(20.0)
        demand.per_s, doubled_s = DOUBLED_PER_S, monotonic()
        grown_s = await until_true(lambda: len(fleet.view().ready()) > 1)
        await asyncio.sleep(10.0)  # what had piled up is worked off
        settled_s = monotonic()
        await asyncio.sleep(20.0)
        demand.per_s, calm_s = USUAL_PER_S / 4, monotonic()
        shrunk_s = await until_true(lambda: [child.replica_id for child in stack.supervisor.children] == ["tiny@1-0"])
        flowing.cancel()
        await flowing
        stats = [member.report.stats for member in fleet.members() if member.report is not None]
        starts = [round(size.at_s - began_s, 1) for size in stack.scaling["tiny@1"].sizes]

    before_s, late_s = demand.p95_s(began_s, doubled_s), demand.p95_s(doubled_s, grown_s)
    after_s = demand.p95_s(settled_s, calm_s)
    overruns = sum(one.overrun_steps for one in stats) / max(1, sum(one.paced_steps for one in stats))
    for name, value in {
        "requests": len(demand.ttft_s),
        "failed": len(demand.failed),
        "ttft_p95_before_s": round(before_s, 3),
        "ttft_p95_doubled_s": round(late_s, 3),
        "ttft_p95_after_s": round(after_s, 3),
        "target_s": TARGET_S,
        "grown_after_s": round(grown_s - doubled_s, 1),
        "shrunk_after_s": round(shrunk_s - calm_s, 1),
        "changes_at_s": str(starts),
        "overrun_fraction": round(overruns, 4),
    }.items():
        record_property(name, value)
    assert demand.failed == []
    if overruns > TOO_MANY_OVERRUNS:
        pytest.skip(f"this machine is too busy for these figures: {overruns:.0%} of the steps overran their pace")
    assert after_s < TARGET_S


@pytest.fixture
def until_true() -> Callable[..., Awaitable[float]]:
    """`await until_true(condition)` returns when it became true, by the clock."""

    async def wait(condition: Callable[[], object]) -> float:
        async with asyncio.timeout(MOST_S):
            while not condition():  # noqa: ASYNC110 -- the condition is another process's
                await asyncio.sleep(0.02)
        return monotonic()

    return wait
