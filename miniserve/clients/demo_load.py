"""The demo's own clients: simulated people who ask graded questions, and say whether the answer was right.

Open-loop: a question leaves at its time, whatever became of the others. The rate goes slowly up and down, and `factor`
multiplies it while the load runs. Each person has an id, a tenant, a region and a feature, reads a stream or waits for
the whole answer, and often asks again after a wrong one. Knows the public API only.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

import httpx

from miniserve.sse import SSEDecoder
from miniserve.types import Clock

MAX_TOKENS = 48  # the longest right answer has 19
PATIENCE_S = 30.0  # of a person, for the whole answer
CONNECT_TIMEOUT_S = 10.0
PEOPLE = 240
ASKS_AGAIN = 0.3  # share of the wrong answers after which the same question comes once more
REREAD_S = 2.0  # before it does
WAVES = ((0.25, 240.0), (0.10, 67.0))  # (share of the rate, seconds)
STEP_S = 0.25  # how soon a new factor is noticed
LATE_S = 1.0  # a machine that slept does not send everything at once
TENANTS, REGIONS = ("acme", "globex", "initech"), ("eu", "us", "ap")
FEATURES = {"arithmetic": "calculator", "string": "letters", "fact": "search"}


@dataclass(frozen=True, slots=True)
class GradedQuestion:
    """One question with its only right answer. `task`: arithmetic, string or fact."""

    task: str
    text: str
    answer: str


@dataclass(slots=True)
class LoadCounts:
    """What has come of the load so far. `rate_per_s`: how many questions leave at the moment."""

    rate_per_s: float = 0.0
    sent: int = 0
    answered: int = 0
    failed: int = 0
    graded: int = 0  # answers whose grade the gateway took
    good: int = 0  # right ones, of those that were answered

    def as_json(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Visitor:
    """One simulated user; who it is never changes, so experiments and sticky routes see the same one again."""

    session: str
    tenant: str
    region: str
    streams: bool
    priority: str


def visitor(number: int) -> Visitor:
    """Return visitor `number`: every third reads streams, every tenth is a job in the background."""
    tenant, region = TENANTS[number % 3], REGIONS[number // 3 % 3]
    return Visitor(
        f"user-{number:03d}", tenant, region, number % 3 == 0, "batch" if number % 10 == 9 else "interactive"
    )


def wavy_rate(seconds: float, mean_per_s: float) -> float:
    """Return the rate at `seconds` from the start: the mean, with slow waves on it."""
    return mean_per_s * (1 + sum(share * math.sin(2 * math.pi * seconds / period) for share, period in WAVES))


class DemoLoad:
    """`run` sends until `stop` is set, and returns when every answer is in."""

    def __init__(
        self,
        url: str,
        models: Mapping[str, float],
        questions: Iterator[GradedQuestion],
        clock: Clock,
        rng: Random,
        *,
        mean_per_s: float,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`models`: how often each is asked, relative to the others. `transport`: another way than the network."""
        self.factor = 1.0
        self.stop = asyncio.Event()
        self.counts = LoadCounts()
        self._models = models
        self._questions = questions
        self._clock = clock
        self._rng = rng
        self._mean_per_s = mean_per_s
        self._client = httpx.AsyncClient(
            base_url=url.rstrip("/").removesuffix("/v1"),
            timeout=httpx.Timeout(PATIENCE_S, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
            trust_env=False,
            transport=transport,
        )

    def turn(self, factor: float) -> None:
        """Multiply the rate by `factor` from now on."""
        self.factor = max(0.0, factor)

    async def run(self) -> None:
        asking: set[asyncio.Task[None]] = set()
        async with self._client:
            async for _ in self._arrivals():
                task = asyncio.create_task(self._visit(visitor(self._rng.randrange(PEOPLE)), next(self._questions)))
                asking.add(task)
                task.add_done_callback(asking.discard)
            while asking:
                await asyncio.wait(asking)

    # --- when ------------------------------------------------------------------------------------------------------

    async def _arrivals(self) -> AsyncIterator[None]:
        """Yield at each arrival of a Poisson process whose rate follows the waves and the factor, until `stop`."""
        started_s = due_s = self._clock()
        while True:
            area = self._rng.expovariate(1.0)
            while area > 0:
                rate = self.counts.rate_per_s = wavy_rate(due_s - started_s, self._mean_per_s) * self.factor
                is_next = area <= rate * STEP_S
                due_s = max(due_s + (area / rate if is_next else STEP_S), self._clock() - LATE_S)
                area = 0.0 if is_next else area - rate * STEP_S
                if await self._stopped_within(due_s - self._clock()):
                    self.counts.rate_per_s = 0.0
                    return
            yield

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self.stop.wait()
        except TimeoutError:
            return self.stop.is_set()
        return True

    # --- what ------------------------------------------------------------------------------------------------------

    async def _visit(self, who: Visitor, question: GradedQuestion) -> None:
        """Ask, grade, and perhaps ask once more."""
        is_right = await self._ask(who, question)
        if is_right is False and self._rng.random() < ASKS_AGAIN and not await self._stopped_within(REREAD_S):
            await self._ask(who, question)

    async def _ask(self, who: Visitor, question: GradedQuestion) -> bool | None:
        """Return whether the answer was right; None if there was none."""
        counts = self.counts
        counts.sent += 1
        try:
            async with asyncio.timeout(PATIENCE_S):
                answer = await self._complete(who, question)
        except (httpx.HTTPError, TimeoutError, ValueError, LookupError, TypeError):
            counts.failed += 1
            return None
        counts.answered += 1
        is_right = (answer.text, answer.finish_reason) == (question.answer, "stop")
        counts.good += is_right
        await self._grade(answer.id, is_right)
        return is_right

    async def _complete(self, who: Visitor, question: GradedQuestion) -> _Answer:
        """Raises: httpx.HTTPError, or ValueError, LookupError or TypeError for an answer that is none."""
        names, shares = zip(*self._models.items(), strict=True)
        body = {
            "model": self._rng.choices(names, shares)[0],
            "messages": [{"role": "user", "content": question.text}],
            "max_tokens": MAX_TOKENS,
            "temperature": 0,
            "stream": who.streams,
        }
        headers = {
            "x-tenant-id": who.tenant,
            "x-session-id": who.session,
            "x-region": who.region,
            "x-feature": FEATURES.get(question.task, question.task),
            "x-priority": who.priority,
        }
        async with self._client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response:
            response.raise_for_status()
            if not who.streams:
                return _whole(json.loads(await response.aread()))
            answer, decoder = _Answer(), SSEDecoder()
            async for chunk in response.aiter_bytes():
                for data in decoder.feed(chunk):
                    answer.take(data)
            return answer.complete()

    async def _grade(self, answer_id: str, is_right: bool) -> None:
        """Say what the answer was worth. A gateway that takes no feedback is asked nothing else."""
        try:
            said = await self._client.post(
                "/v1/feedback", json={"id": answer_id, "rating": "up" if is_right else "down"}
            )
        except httpx.HTTPError:
            return
        self.counts.graded += said.is_success


@dataclass(slots=True)
class _Answer:
    id: str = ""
    text: str = ""
    finish_reason: str | None = None
    _has_ended: bool = False

    def take(self, data: str) -> None:
        """Raises: ValueError for an error inside the stream, or what is no chunk."""
        if data == "[DONE]":
            self._has_ended = True
            return
        chunk = json.loads(data)
        if "error" in chunk:
            raise ValueError("the answer broke off")
        self.id = chunk["id"]
        for choice in chunk["choices"]:
            self.text += choice["delta"].get("content") or ""
            self.finish_reason = choice["finish_reason"] or self.finish_reason

    def complete(self) -> _Answer:
        if not self._has_ended:
            raise ValueError("the answer broke off")
        return self


def _whole(answer: dict[str, Any]) -> _Answer:
    choice = answer["choices"][0]
    return _Answer(answer["id"], choice["message"]["content"] or "", choice["finish_reason"])
