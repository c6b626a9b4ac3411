"""Faults by the seed, under load: processes killed and stopped, connections cut. No client may notice anything.

A fault comes when at least two replicas are ready and all streams go on again after the last one: what is proven is
that each fault is survived, not that everything may be broken at once.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from drills.rig import SMALL, Rig, rig, until

from miniserve.drills.hops import Hops
from miniserve.drills.injector import signal_pid
from miniserve.drills.verdict import Seen, Tally, ask_greedily

pytestmark = pytest.mark.anyio

PROMPTS = [f"Once upon a time there was a {who}" for who in ("king", "cat", "ship", "baker", "river")]
TOKENS = 40
STREAMS = 6


@pytest.fixture(scope="module")
async def three() -> AsyncIterator[Rig]:
    async with rig(SMALL, replicas=3) as one:
        yield one


@dataclass
class Load:
    """`STREAMS` clients who ask, read the answer, and ask again."""

    one: Rig
    tally: Tally
    open: dict[int, Seen] = field(default_factory=dict)  # by client: the answer that is being read

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for number in range(STREAMS):
                group.create_task(self._ask_on(number, stop))
            yield
            stop.set()

    async def _ask_on(self, number: int, stop: asyncio.Event) -> None:
        turn = number
        while not stop.is_set():
            prompt, turn = PROMPTS[turn % len(PROMPTS)], turn + 1
            self.open[number] = seen = Seen()
            await ask_greedily(self.one.client, self.one.model, prompt, TOKENS, seen)
            del self.open[number]
            self.tally.add(prompt, TOKENS, seen, any_ready=True)

    async def all_go_on(self) -> None:
        """Come back when each stream has brought more than can have been on its way, or has ended.

        Twice, since a request may have begun meanwhile on the very replica that was hit.
        """
        for more in (3, 1):
            for number, seen in tuple(self.open.items()):
                enough = len(seen.tokens) + more
                await until(lambda n=number, s=seen, e=enough: self.open.get(n) is not s or len(s.tokens) >= e)


async def storm(one: Rig, faults: int, seed: int) -> tuple[Tally, Counter[str]]:
    """Let `faults` faults happen; return what the clients saw, how many faults of each kind there were, and resumes."""
    await one.ready(3)
    rng, done, stopped = Random(seed), Counter[str](), set[str]()
    kinds = [("kill", "hang", "cut")[i % 3] for i in range(faults)]
    rng.shuffle(kinds)
    answers = [await ask_greedily(one.client, one.model, prompt, TOKENS) for prompt in PROMPTS]
    expected = {prompt: tuple(answer.tokens) for prompt, answer in zip(PROMPTS, answers, strict=True)}
    assert all(len(tokens) == TOKENS for tokens in expected.values())
    load = Load(one, Tally(expected))

    def unhurt() -> list[str]:
        return [replica_id for replica_id in one.living() if replica_id not in stopped]

    def note(replica_id: str, body: dict[str, Any]) -> None:
        done["resumed"] += bool(body["resume_ids"])

    async with Hops(one.stack.gateway.fleet, note) as hops, load.running():
        for kind in kinds:
            await until(lambda: len(unhurt()) >= 2)
            await asyncio.sleep(rng.uniform(0.0, 0.3))  # somewhere in a stream: not to wait for anything
            victim = rng.choice(unhurt())
            if kind == "cut":
                hops[victim].cut()
            elif kind == "kill":
                signal_pid(one.pid(victim), signal.SIGKILL)
            else:
                pid = one.pid(victim)
                stopped.add(victim)
                signal_pid(pid, signal.SIGSTOP)
            done[kind] += 1
            await load.all_go_on()
            if kind == "hang":
                signal_pid(pid, signal.SIGCONT)
                stopped.remove(victim)
    return load.tally, done


@pytest.mark.parametrize(
    "faults", [30, pytest.param(300, marks=pytest.mark.full), pytest.param(1000, marks=pytest.mark.full)]
)
async def test_no_client_notices_random_faults(
    three: Rig, faults: int, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    monkeypatch.setattr("miniserve.processes.supervisor.LAST_BACKOFF_S", 0.5)  # a crash loop is what this is
    tally, done = await storm(three, faults, seed=faults)
    record_property("faults", dict(done))
    record_property("answers", tally.requests)
    assert min(done[kind] for kind in ("kill", "hang", "cut")) >= faults // 3
    assert done["resumed"] > 0, "otherwise this proves nothing"
    assert (tally.lost, tally.altered, tally.errors) == (0, 0, [])
    assert tally.answered == tally.requests > 0


async def test_a_stream_on_a_stopped_process_goes_on_elsewhere_long_before_its_silence_is_an_error(three: Rig) -> None:
    await three.ready(3)
    expected = await ask_greedily(three.client, three.model, PROMPTS[0], TOKENS)
    seen, loop = Seen(), asyncio.get_running_loop()
    asking = asyncio.create_task(ask_greedily(three.client, three.model, PROMPTS[0], TOKENS, seen))
    await until(lambda: len(seen.tokens) >= 5)
    (victim,) = [view.replica_id for view in three.stack.gateway.fleet.view().replicas if view.outstanding]
    pid, stopped_at = three.pid(victim), loop.time()
    signal_pid(pid, signal.SIGSTOP)
    try:
        await asking
    finally:
        signal_pid(pid, signal.SIGCONT)
    assert seen.tokens == expected.tokens
    assert (seen.error, seen.ends) == (None, 1)
    assert loop.time() - stopped_at >= 4.0, "the watch's patience: otherwise this proves nothing"
