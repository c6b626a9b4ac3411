"""Questions whose answers are known, sent at a steady rate; each answer is graded, and the grade is its feedback."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import httpx

from miniserve.processes.stack import Stack
from miniserve.training.evalset import SIZES, read_set
from miniserve.training.score import MAX_TOKENS

SETS = Path(__file__).parents[2] / "data" / "eval"
AT_ONCE = 40  # questions; more are left out, so that a busy machine is not buried under them


@dataclass
class Graded:
    """What came of the questions. `served`: by (asked for, answered by)."""

    client: httpx.AsyncClient
    rng: Random
    pinned: str = ""  # every tenth client insists on this version
    served: Counter[tuple[str, str]] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    left_out: int = 0
    _asking: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.items = [item for difficulty in SIZES for item in read_set(SETS, difficulty)]

    async def _ask(self, number: int, model: str) -> None:
        item = self.rng.choice(self.items)
        body = {
            "model": model,
            "messages": [{"role": "user", "content": item.question}],
            "max_tokens": MAX_TOKENS,
            "temperature": 0,
            "user": f"user-{number % 1009}",
        }
        answer = await self.client.post("/v1/chat/completions", json=body)
        if answer.status_code != 200:
            self.failed.append(answer.text)
            return
        told = answer.json()
        (choice,) = told["choices"]
        good = choice["message"]["content"] == item.answer and choice["finish_reason"] == "stop"
        served = answer.headers["x-miniserve-model"]
        self.served[model, served] += 1
        self.right[served] += good
        await self._give_feedback(told["id"], good)

    async def _give_feedback(self, answer_id: str, good: bool) -> None:
        said = await self.client.post("/v1/feedback", json={"id": answer_id, "score": float(good)})
        assert said.json() == {"id": answer_id, "counted": True}, said.text

    async def send(self, rate_per_s: float) -> None:
        """Ask for ever, at even intervals."""
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        for number in range(10**9):
            await asyncio.sleep(max(0.0, begun_s + number / rate_per_s - loop.time()))
            if len(self._asking) >= AT_ONCE:
                self.left_out += 1
                continue
            model = self.pinned if self.pinned and number % 10 == 0 else "large"
            task = asyncio.create_task(self._ask(number, model))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def end(self) -> None:
        """Let the answers on their way come."""
        await asyncio.gather(*self._asking)


@asynccontextmanager
async def questions(stack: Stack, rate_per_s: float, *, seed: int, pinned: str = "") -> AsyncIterator[Graded]:
    """Ask at this rate inside the block; all answers are there after it."""
    limits = httpx.Limits(max_connections=AT_ONCE + 10)
    async with httpx.AsyncClient(base_url=stack.url, timeout=120.0, trust_env=False, limits=limits) as client:
        graded = Graded(client, Random(seed), pinned)
        sending = asyncio.create_task(graded.send(rate_per_s))
        try:
            yield graded
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            await graded.end()


async def until_true(condition: Callable[[], object], within_s: float) -> None:
    """Come back when `condition()` holds; fail when it does not in time."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 -- the condition is a control loop's
            await asyncio.sleep(0.02)
