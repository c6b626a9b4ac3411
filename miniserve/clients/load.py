"""Open-loop load over HTTP: requests leave at their own times, even if earlier ones are still waiting for answers.

A load generator that waits for answers before sending more is slowed down by the very server it measures, and reports
latencies that no real client would see (coordinated omission). Here every request has an *intended* time, all latencies
count from it, and the real lateness of requests is reported as well.

Uses the streaming completions API of any OpenAI-compatible server. Prompts are made of common words, about one token
each; a follow-up's prompt begins with the words of the previous one, so prefix caches see realistic traffic.
Knows a URL and requests, but not which policies serve them.
"""

from __future__ import annotations

import asyncio
import math
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import httpx

from miniserve.clients.answer import Answer, message_in
from miniserve.errors import RequestError, UpstreamError
from miniserve.observe.outcomes import CLIENT_LEFT, SERVED, OutcomeLog, Outcomes
from miniserve.observe.percentiles import percentiles
from miniserve.policies.recovery.retry import NeverRetry, RetryPolicy
from miniserve.policies.recovery.retry_budget import Budget
from miniserve.types import Clock, Request, TokenIds

CONNECT_TIMEOUT_S = 10.0  # for a connection; answers may take as long as their deadline allows
_VOCABULARY = (
    "time year people way day man thing woman life child world school state family student group country problem hand "
    "part place case week company system program question work number night point home water room mother area money "
    "story fact month lot right study book eye job word business issue side kind head house service friend father hour "
    "game line end member law car city name"
)
_WORDS = _VOCABULARY.split()
_64_BITS = (1 << 64) - 1
OnSent = Callable[[int, int], None]  # sent, answered


def prompt_text(prompt_ids: TokenIds) -> str:
    """Return about one common word per token; equal beginnings give equal text."""
    return " ".join(_WORDS[_scattered(token) % len(_WORDS)] for token in prompt_ids)


def _scattered(number: int) -> int:
    """Return 64 bits that depend on all bits of `number` (the mixing steps of splitmix64).

    A multiplication alone is not enough: unrelated chats begin at multiples of a power of two, and would share just 65
    beginnings.
    """
    mixed = number & _64_BITS
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _64_BITS
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _64_BITS
    return mixed ^ mixed >> 31


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What the clients saw, with times in seconds from the start. `lag_s`: how late each request left."""

    outcomes: Outcomes
    lag_s: tuple[float, ...] = ()
    reasons: Mapping[int, str] = field(default_factory=dict)  # the first message received with each status
    unanswered: int = 0  # sent, but still open when the run was interrupted
    stopped: str | None = None
    itl_s: Sequence[float] = ()  # between the tokens of served answers

    def lag_line(self) -> str:
        """Describe how well the schedule was kept."""
        if not self.lag_s:
            return "nothing was sent"
        p50, p99, most = percentiles(self.lag_s, (50, 99, 100))
        words = f"requests left {p50 * 1000:.1f} ms (p50), {p99 * 1000:.1f} ms (p99), {most * 1000:.1f} ms (max) late"
        return f"{len(self.lag_s):,} {words}; latencies count from the intended time"


@dataclass(frozen=True, slots=True)
class Habits:
    """What the clients of a run do when they lose patience or get an error; they share one budget.

    Each try is a request of its own to the server, called "ID~N". In simulation `sim.clients` does the same.
    """

    timeout_s: float | None = None  # for each try
    retry: RetryPolicy = field(default_factory=NeverRetry)
    budget: Budget | None = None

    def patience_s(self, request: Request, now_s: float) -> float | None:
        """Return how long a try that begins now may take; None: for ever."""
        limits = [] if self.timeout_s is None else [self.timeout_s]
        if request.deadline_s is not None:
            limits.append(max(0.0, request.deadline_s - now_s))
        return min(limits, default=None)

    def wait_s(self, failures: int, answer: Answer, request: Request, now_s: float) -> float | None:
        """Return how long to wait before another try, or None to give up."""
        wait_s = self.retry.delay_s(failures, answer.error(), now_s, request.deadline_s)
        if wait_s is None or (self.budget is not None and not self.budget.withdraw(now_s)):
            return None
        return wait_s


def headers_of(request: Request, left_s: float | None) -> dict[str, str]:
    """Return what a request says about itself beside its body; another server ignores it."""
    said = {
        "x-tenant-id": request.tenant,
        "x-session-id": request.session_key,
        "x-region": request.region,
        "x-feature": request.feature,
        "x-priority": request.priority.name.lower(),
        "x-request-timeout-s": None if left_s is None else f"{max(left_s, 0.001):.3f}",
    }
    return {name: value for name, value in said.items() if value}


class LoadRun:
    """One run against one server. `run` sends and collects; cancelling it ends the run and keeps the results so far."""

    def __init__(
        self,
        url: str,
        model: str,
        clock: Clock,
        *,
        api_key: str | None = None,
        on_progress: OnSent | None = None,
        habits: Habits | None = None,
        body: Mapping[str, object] | None = None,
        warmup_s: float = 0.0,
    ) -> None:
        """`body`: further fields of each request's body, or other values for those that it has.

        `warmup_s`: what is meant to leave before is sent, but in no figure of the result.
        """
        self._warmup_s = warmup_s
        self._sent = 0
        self._model = model
        self._clock = clock
        self._habits = habits or Habits()
        self._body = body or {}
        self._on_progress = on_progress or (lambda sent, answered: None)
        self._log = OutcomeLog()
        self._lag_s: list[float] = []
        self._itl_s = array("d")
        self._reasons: dict[int, str] = {}
        self._started_s = 0.0
        self._client = httpx.AsyncClient(
            base_url=url.rstrip("/").removesuffix("/v1"),
            headers={"authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            trust_env=False,
        )

    async def run(self, requests: Iterable[Request]) -> LoadResult:
        """Send every request at its time; return once all are answered, or immediately if cancelled."""
        tasks: set[asyncio.Task[None]] = set()
        stopped = None
        async with self._client:
            try:
                await self._send_all(requests, tasks)
                while tasks:
                    await asyncio.wait(tasks)
            except asyncio.CancelledError:
                stopped = f"interrupted after {self._now_s():,.1f} s"
            unanswered = len(tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        outcomes = self._log.outcomes().arrived_between(self._warmup_s, math.inf)
        return LoadResult(outcomes, tuple(self._lag_s), self._reasons, unanswered, stopped, self._itl_s)

    async def _send_all(self, requests: Iterable[Request], tasks: set[asyncio.Task[None]]) -> None:
        self._started_s = self._clock()
        for index, request in enumerate(requests):
            wait_s = request.arrived_s - self._now_s()
            await asyncio.sleep(max(0.0, wait_s))  # even when late: answers must be read as well
            task = asyncio.create_task(self._ask(index, request), name=f"load {request.request_id}")
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    def _now_s(self) -> float:
        return self._clock() - self._started_s

    async def _ask(self, index: int, request: Request) -> None:
        counts = request.arrived_s >= self._warmup_s
        if counts:
            self._lag_s.append(max(0.0, self._now_s() - request.arrived_s))
        self._sent += 1
        self._on_progress(self._sent, len(self._log))
        answer, tries = await self._persist(request)
        if counts and answer.status != SERVED:
            self._reasons.setdefault(answer.status, answer.problem)
        self._itl_s.extend(answer.gaps_s if counts and answer.status == SERVED else ())
        self._record(index, request, answer, tries)

    async def _persist(self, request: Request) -> tuple[Answer, int]:
        """Ask until there is an answer or no retry is left; return the last answer, and how many tries there were."""
        habits = self._habits
        if habits.budget is not None:
            habits.budget.deposit(self._now_s())
        tries = 0
        while True:
            answer = await self._try(request, tries)
            tries += 1
            if habits.budget is not None:
                habits.budget.record(answer.status == SERVED, self._now_s())
            wait_s = None if answer.status == SERVED else habits.wait_s(tries, answer, request, self._now_s())
            if wait_s is None:
                return answer, tries
            await asyncio.sleep(wait_s)

    async def _try(self, request: Request, number: int) -> Answer:
        answer = Answer()
        left_s = self._habits.patience_s(request, self._now_s())
        try:
            async with asyncio.timeout(left_s):
                await self._stream(request, answer, left_s, f"{request.request_id}~{number}" if number else None)
        except TimeoutError:
            answer.fail(CLIENT_LEFT, "the deadline passed before the answer was complete")
        except RequestError as error:  # told inside the stream
            answer.fail(error.status, error.message)
        except (httpx.HTTPError, ValueError) as error:
            answer.fail(UpstreamError.status, f"{type(error).__name__}: {error}")
        return answer

    async def _stream(self, request: Request, answer: Answer, left_s: float | None, request_id: str | None) -> None:
        body = {
            "model": self._model,
            "prompt": prompt_text(request.prompt_ids),
            "max_tokens": request.sampling.max_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self._body,
        }
        headers = {"x-request-id": request_id or request.request_id, **headers_of(request, left_s)}
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        async with self._client.stream("POST", "/v1/completions", json=body, headers=encoded) as response:
            if response.status_code != SERVED:
                retry_after = response.headers.get("retry-after")
                answer.fail(response.status_code, message_in(await response.aread()), retry_after)
                return
            async for chunk in response.aiter_raw():
                answer.feed(chunk, self._now_s())

    def _record(self, index: int, request: Request, answer: Answer, tries: int) -> None:
        self._log.record(
            index,
            request.arrived_s,
            self._now_s() if answer.ended_s is None else answer.ended_s,
            first_token_s=answer.first_token_s,
            deadline_s=request.deadline_s,
            prompt_tokens=answer.usage.get("prompt_tokens", len(request.prompt_ids)),
            output_tokens=answer.usage.get("completion_tokens", answer.pieces),
            cached_tokens=(answer.usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0),
            attempts=tries,
            status=answer.status,
            tenant=request.tenant,
        )
        self._on_progress(self._sent, len(self._log))


async def first_model(url: str, api_key: str | None = None) -> str:
    """Return the name of the first model that the server at `url` offers. Raises: UpstreamError if there is none."""
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    base = url.rstrip("/").removesuffix("/v1")
    try:
        async with httpx.AsyncClient(timeout=CONNECT_TIMEOUT_S, trust_env=False) as client:
            answer = await client.get(f"{base}/v1/models", headers=headers)
            answer.raise_for_status()
            return str(answer.json()["data"][0]["id"])
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UpstreamError(f"{base}/v1/models does not answer ({type(error).__name__}: {error})") from None
    except (ValueError, KeyError, IndexError, TypeError):
        raise UpstreamError(f"{base}/v1/models names no model") from None
