"""Chapter 18's experiments: waves of clients, an overloaded service, a shaky one, and Larkspur's GPUs.

The numbers and models are chapter 10's. Here the clients are real loops (`clients.retry_loop.persist`, or the
learner's own) that wait in simulated time. This module only draws and prints: the ideas are in the notebook's cells.
Contains no answers.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from miniserve import seeds
from miniserve.clients.retry_loop import Try
from miniserve.course.chapters.ch10_retry_storms import lab as ch10
from miniserve.course.chapters.ch10_retry_storms.lab import (
    BUSY,
    CAPACITY_PER_S,
    FAULT_AT_S,
    LASTS_S,
    TIMEOUT_S,
    NextWait,
    Second,
    Storm,
)
from miniserve.course.figures import line_style, new_figure, show
from miniserve.course.tables import as_text, table
from miniserve.observe.outcomes import Floats
from miniserve.policies.recovery.retry import RetryPolicy
from miniserve.policies.recovery.retry_budget import Budget
from miniserve.policies.recovery.waits import Waits
from miniserve.toml.reader import Recipe

Persist = Callable[..., Coroutine[Any, Any, Try]]

FAILURES = {
    "a": "503, the queue is full; the server asks to come back in 2 s.",
    "b": "400, the prompt is longer than the model allows.",
    "c": "502, the connection was refused before anything was sent.",
    "d": "429, this customer has sent too many requests in this minute; the server asks to come back in 12 s.",
    "e": "401, the key is wrong.",
    "f": "502, the answer broke off after 40 words, which the customer has read; this server cannot continue it.",
    "g": "504, the deadline has passed: nobody needs the answer any more.",
    "h": "503, the server is overloaded and asks not to come back at all (a push-back of -1).",
}


# --- waves ---------------------------------------------------------------------------------------------------------


def by_waits(waits: Waits, way: str) -> NextWait:
    """Return one of the four ways in the form of chapter 10's waves; it remembers each client's wait before."""
    previous_s: dict[int, float] = {}

    def next_wait(client: int, failures: int) -> float:
        before_s = previous_s.get(client, waits.base_s)
        previous_s[client] = wait_s = getattr(waits, way)(failures, before_s)
        return float(wait_s)

    return next_wait


def compare_waves(rows: Mapping[str, Sequence[Second]], caption: str) -> None:
    """Show for each way how many clients were served, by when, and in how many tries."""
    found = list(rows.values())
    table(
        {
            "waits": list(rows),
            "tries": [sum(arriving for _, arriving, _ in seconds) for seconds in found],
            "served": [sum(served for _, _, served in seconds) for seconds in found],
            "last one served (s)": [max(second for second, _, served in seconds if served) for seconds in found],
            "most in one second": [max(arriving for _, arriving, _ in seconds) for seconds in found],
        },
        caption,
    )


# --- clients in simulated time -------------------------------------------------------------------------------------


class _Until:
    """What a client awaits: when it goes on, and what result it gets then."""

    def __init__(self, at_s: float, told: Try | None = None) -> None:
        self.at_s = at_s
        self.told = told

    def __await__(self) -> Generator[_Until, Try | None, Any]:
        return (yield self)


Answer = Callable[[int, float, int], tuple[float, Exception | None]]
"""(which request, now, which try of it) -> when the try ends, and its error; None: it succeeds."""


@dataclass(frozen=True, slots=True, eq=False)
class Played:
    """What became of the requests, and when each try was sent."""

    storm: Storm
    tried_s: Floats

    def __repr__(self) -> str:
        return f"{self.storm}, {len(self.tried_s):,} tries"

    @property
    def late_share(self) -> float:
        """The share answered in time of the last minute's requests."""
        return self.storm.late_share

    def between(self, start_s: float, end_s: float) -> tuple[float, float]:
        """Return the share answered and the mean tries of the requests that came in [start_s, end_s)."""
        return self.storm.between(start_s, end_s)


def play(
    persist: Persist, policy: RetryPolicy, budget: Budget, answer: Answer, arrivals_per_s: float, end_s: float = LASTS_S
) -> Played:
    """Let clients with `persist` come until `LASTS_S`; they share policy and budget, as in one calling service.

    From `end_s` on they send nothing.
    """
    arrived = np.arange(0, LASTS_S, 1 / arrivals_per_s)
    good, tries = np.zeros(len(arrived), dtype=bool), np.zeros(len(arrived))
    tried_s: list[float] = []
    now_s = 0.0

    def client(index: int) -> Coroutine[Any, Any, Try]:
        def send(words: tuple[str, ...]) -> _Until:
            if now_s >= end_s:
                return _Until(math.inf)
            tries[index] += 1
            tried_s.append(now_s)
            at_s, error = answer(index, now_s, int(tries[index]))
            return _Until(at_s, Try((), error) if error else Try(("done",)))

        return persist(send, lambda seconds: _Until(now_s + seconds), lambda: now_s, policy, budget)

    ties = count()
    events: list[tuple[float, int, int, Any, Try | None]] = [
        (float(at_s), next(ties), index, None, None) for index, at_s in enumerate(arrived)
    ]
    while events:
        now_s, _, index, running, result = heapq.heappop(events)
        running = running or client(index)
        try:
            until = running.send(result)
        except StopIteration as end:
            good[index] = end.value.error is None
            continue
        if until.at_s < math.inf:
            heapq.heappush(events, (until.at_s, next(ties), index, running, until.told))
        else:
            running.close()
    return Played(Storm(arrived, good, tries, LASTS_S), np.asarray(tried_s))


def storm(
    persist: Persist, policy: RetryPolicy, budget: Budget, *, arrivals_per_s: float = 8.0, fault_s: float = 10.0
) -> Played:
    """Simulate chapter 10's server: ten tries per second, down for `fault_s` from second 30 on; clients wait 2 s.

    Nothing tells the server that a client has left, so it serves requests whose clients no longer wait.
    """
    free_s = 0.0

    def answer(index: int, now_s: float, number: int) -> tuple[float, Exception | None]:
        nonlocal free_s
        start_s = max(now_s, free_s)
        if FAULT_AT_S <= start_s < FAULT_AT_S + fault_s:
            start_s = FAULT_AT_S + fault_s
        free_s = start_s + 1 / CAPACITY_PER_S
        left_s = now_s + TIMEOUT_S
        return (free_s, None) if free_s <= left_s + 1e-9 else (left_s, BUSY)

    return play(persist, policy, budget, answer, arrivals_per_s)


def shaky(persist: Persist, policy: RetryPolicy, budget: Budget, fails: float) -> Played:
    """Simulate a service with room for all, where each try takes 0.1 s and fails at random, independently."""

    def answer(index: int, now_s: float, number: int) -> tuple[float, Exception | None]:
        unlucky = seeds.uniform("18 shaky", index, number) < fails
        return now_s + 0.1, BUSY if unlucky else None

    return play(persist, policy, budget, answer, 8.0, end_s=math.inf)


# --- figures -------------------------------------------------------------------------------------------------------


def draw_storms(runs: Mapping[str, Played], fault: tuple[float, float] = (30.0, 40.0)) -> None:
    """Draw the share of requests answered in time, over their time of arrival."""
    ch10.draw_storms({name: run.storm for name, run in runs.items()}, fault=fault, window_s=10.0)


def draw_load(runs: Mapping[str, Played], fault: tuple[float, float] = (30.0, 40.0), window_s: float = 5.0) -> None:
    """Draw how many tries per second reach the server, against what it can do."""
    figure, ax = new_figure("What reaches the server", x="time (s)", y="tries per second")
    edges = np.arange(0, LASTS_S + 1e-9, window_s)
    words = []
    for i, (name, run) in enumerate(runs.items()):
        per_s = np.histogram(run.tried_s, edges)[0] / window_s
        ax.plot(edges[:-1] + window_s / 2, per_s, **line_style(i), label=name)
        words.append(f"{name}: at most {as_text(float(per_s.max()), 2)}, at the end {as_text(float(per_s[-1]), 2)}")
    ax.axhline(CAPACITY_PER_S, color="#000000", linewidth=0.8, label="what the server can do")
    ax.axvspan(*fault, color="#dddddd", zorder=0, label="fault")
    ax.set_ylim(0, None)
    ax.legend(loc="best")
    show(figure, alt=f"Tries per second, of which the server can do {CAPACITY_PER_S}. {'; '.join(words)}.")


def draw_shaky(fails: Sequence[float], runs: Mapping[str, Sequence[Played]]) -> None:
    """Draw the mean tries of a request against the chance that a try fails; the table also has the shares answered."""
    figure, ax = new_figure("What retries cost", x="chance that a try fails", y="tries per request")
    data: dict[str, Sequence[object]] = {"a try fails with chance": [f"{chance:.0%}" for chance in fails]}
    words = []
    for i, (name, row) in enumerate(runs.items()):
        found = [run.between(0, LASTS_S) for run in row]
        ax.plot(range(len(fails)), [tries for _, tries in found], **line_style(i, markers=True), label=name)
        data[f"{name}: tries"] = [tries for _, tries in found]
        data[f"{name}: answered"] = [f"{share:.1%}" for share, _ in found]
        words.append(f"{name}: from {found[0][1]:.2f} to {found[-1][1]:.2f}")
    ax.set_xticks(range(len(fails)), [f"{chance:.0%}" for chance in fails])
    ax.set_ylim(0, None)
    ax.legend(loc="upper left")
    show(figure, alt=f"Mean tries of a request as more tries fail. {'; '.join(words)}.", data=data)


# --- Larkspur, on the real scheduler -------------------------------------------------------------------------------


def larkspur(make: Callable[..., RetryPolicy]) -> Storm:
    """Simulate chapter 10's Larkspur with careful apps; `make` makes their policy from the settings of `Backoff`."""
    scenario = ch10.larkspur_scenario("budgeted")
    assert scenario.clients is not None
    return ch10.storm_in(ch10.with_retry(scenario, Recipe("yours", make, scenario.clients.retry.arguments)))
