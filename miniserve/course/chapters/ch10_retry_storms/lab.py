"""Chapter 10's experiments: a wave of clients, a queue that never empties, and Larkspur's storm on the real scheduler.

Larkspur is the course's fictional service: an assistant for a chain of garden centres. `wave` and `storm` are models of
a few lines that use the framework's retry policies and budgets; `larkspur_storm` runs the real scheduler in virtual
time. Contains no answers.
"""

from __future__ import annotations

import functools
import heapq
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from miniserve.course.figures import line_style, new_figure, show
from miniserve.course.tables import as_text
from miniserve.errors import Overloaded
from miniserve.observe.goodput import SLO, kept
from miniserve.observe.outcomes import Floats, Mask
from miniserve.policies.recovery.retry import NaiveRetry, RetryPolicy
from miniserve.policies.recovery.retry_budget import Budget
from miniserve.scenario import load
from miniserve.scenario.model import Scenario
from miniserve.sim.run import simulate
from miniserve.toml.reader import Recipe

SCENARIO = Path(__file__).resolve().parents[4] / "data" / "scenarios" / "retry_storm.toml"
BUSY = Overloaded("no answer in time")

# --- a wave --------------------------------------------------------------------------------------------------------

SERVED_PER_S = 3  # in the wave of exercise 10.3, worked out on paper
BARE_S = (4, 8)  # waits after the first and the second failure, without jitter
JITTERED_S = {  # the same with jitter: what each client drew
    "A": (1, 5), "B": (3, 2), "C": (2, 7), "D": (1, 1), "E": (4, 6), "F": (2, 3),
    "G": (1, 8), "H": (1, 3), "I": (3, 4), "J": (2, 6), "K": (2, 5), "L": (4, 2),
}  # fmt: skip

NextWait = Callable[[int, int], float]  # (client, failures so far) -> seconds
Second = tuple[int, int, int]  # second, arriving, served


def wave(next_wait: NextWait, clients: int, served_per_s: int, seconds: int) -> list[Second]:
    """Let all clients fail at second 0; return how many arrive and how many are served in each second from 1 on.

    Each second serves the first `served_per_s` clients, in their order; the others fail at once and wait again.
    """
    arriving: dict[int, list[int]] = defaultdict(list)
    failures = [0] * clients

    def fail(client: int, second: int) -> None:
        failures[client] += 1
        arriving[second + max(1, math.ceil(next_wait(client, failures[client])))].append(client)

    for client in range(clients):
        fail(client, 0)
    rows = []
    for second in range(1, seconds + 1):
        here = sorted(arriving.pop(second, []))
        for client in here[served_per_s:]:
            fail(client, second)
        rows.append((second, len(here), min(len(here), served_per_s)))
    return rows


def by_policy(policy: RetryPolicy) -> NextWait:
    """Return the waits that a policy of the framework gives; a client that gives up never comes back."""

    def next_wait(client: int, failures: int) -> float:
        delay_s = policy.delay_s(failures, BUSY, 0.0, None)
        return 1e6 if delay_s is None else delay_s

    return next_wait


def draw_waves(waves: Mapping[str, Sequence[Second]], served_per_s: int) -> None:
    """Draw how many clients arrive in each second, with a panel for each way to wait."""
    figure, axes = new_figure(
        "When clients come back", x="seconds after all failed", y="arriving in that second", panels=len(waves)
    )
    for i, (ax, (name, rows)) in enumerate(zip(axes, waves.items(), strict=True)):
        ax.vlines([row[0] for row in rows], 0, [row[1] for row in rows], **line_style(i) | {"linestyle": "-"})
        ax.axhline(served_per_s, **line_style(5), label="served per second")
        ax.set_title(name, fontsize=10)
        ax.legend(loc="upper right")
    ends = "; ".join(
        f"{name}: at most {max(row[1] for row in rows)} in one second, {sum(row[2] for row in rows)} served by the end"
        for name, rows in waves.items()
    )
    show(figure, alt=f"Arrivals per second, against {served_per_s} that can be served. {ends}.")


# --- a server that works for clients that have left ----------------------------------------------------------------

CAPACITY_PER_S = 10
TIMEOUT_S = 2.0
FAULT_AT_S, LASTS_S, LOOKED_AT_S = 30.0, 240.0, 60.0


@dataclass(frozen=True, slots=True, eq=False)
class Storm:
    """One row per request, in the order of arrival; `end_s` is when the last one arrived."""

    arrived_s: Floats
    good: Mask  # answered in time, on any try
    tries: Floats
    end_s: float

    def __repr__(self) -> str:
        return f"{len(self.good):,} requests in {self.end_s:g} s"

    def between(self, start_s: float, end_s: float) -> tuple[float, float]:
        """Return the share answered in time and the mean tries of the requests that arrived in [start_s, end_s)."""
        those = (self.arrived_s >= start_s) & (self.arrived_s < end_s)
        return float(self.good[those].mean()), float(self.tries[those].mean())

    @property
    def late_share(self) -> float:
        """The share answered in time of the last minute's requests."""
        return self.between(self.end_s - LOOKED_AT_S, self.end_s)[0]


def storm(
    policy: RetryPolicy, *, arrivals_per_s: float = 8.0, fault_s: float = 10.0, budget: Budget | None = None
) -> Storm:
    """Simulate a server with a queue, down for `fault_s` from second 30 on, and clients that wait 2 s.

    Nothing tells the server that a client has left, so it serves requests whose clients no longer wait.
    """
    arrived = np.arange(0, LASTS_S, 1 / arrivals_per_s)
    good, tries = np.zeros(len(arrived), dtype=bool), np.zeros(len(arrived))
    events = [(float(at), index) for index, at in enumerate(arrived)]  # in order, so already a heap
    free_s = 0.0
    while events:
        now_s, index = heapq.heappop(events)
        tries[index] += 1
        if budget is not None and tries[index] == 1:
            budget.deposit(now_s)
        start_s = max(now_s, free_s)
        if FAULT_AT_S <= start_s < FAULT_AT_S + fault_s:
            start_s = FAULT_AT_S + fault_s
        free_s = start_s + 1 / CAPACITY_PER_S
        left_s = now_s + TIMEOUT_S
        if free_s <= left_s + 1e-9:
            good[index] = True
            continue
        wait_s = policy.delay_s(int(tries[index]), BUSY, left_s, None)
        if wait_s is not None and left_s + wait_s < LASTS_S and (budget is None or budget.withdraw(left_s)):
            heapq.heappush(events, (left_s + wait_s, index))
    return Storm(arrived, good, tries, LASTS_S)


def draw_storms(storms: Mapping[str, Storm], fault: tuple[float, float], window_s: float = 5.0) -> None:
    """Draw the share of requests answered in time, over their time of arrival."""
    figure, ax = new_figure("Answered in time", x="time of arrival (s)", y="share of requests")
    ends = []
    for i, (name, found) in enumerate(storms.items()):
        starts = np.arange(0, found.end_s - window_s + 1e-9, window_s)
        shares = [found.between(start, start + window_s)[0] for start in starts]
        ax.plot(starts + window_s / 2, shares, **line_style(i), label=name)
        ends.append(f"{name} {shares[-1]:.0%}")
    ax.axvspan(*fault, color="#dddddd", zorder=0, label="fault")
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    ax.set_ylim(-0.03, 1.05)
    ax.legend(loc="center right")
    show(
        figure,
        alt=f"All curves are near 100 % before the fault, {as_text(fault[0])} s to {as_text(fault[1])} s, and fall "
        f"to nearly 0 in it. In the last {window_s:g} s: {', '.join(ends)}.",
    )


# --- Larkspur, on the real scheduler -------------------------------------------------------------------------------

LARKSPUR_FAULT = (20.0, 40.0)
LARKSPUR_S = 90.0
LARKSPUR_TRIES = 4
LATE_S = (55.0, 85.0)


def larkspur_scenario(clients: str) -> Scenario:
    """Return the shipped scenario, shortened; `clients` is "naive" (at most four tries) or "budgeted"."""
    full = load(SCENARIO, variant=clients)
    start_s, end_s = LARKSPUR_FAULT
    events = tuple(replace(event, at_s=start_s, duration_s=end_s - start_s) for event in full.faults.events)
    scenario = replace(full, run=replace(full.run, duration_s=LARKSPUR_S), faults=replace(full.faults, events=events))
    if clients == "naive":
        naive: Recipe[RetryPolicy] = Recipe("naive", NaiveRetry, {"max_attempts": LARKSPUR_TRIES})
        scenario = with_retry(scenario, naive)
    return scenario


def with_retry(scenario: Scenario, retry: Recipe[RetryPolicy]) -> Scenario:
    """Return the scenario with another retry policy for its clients."""
    assert scenario.clients is not None
    return replace(scenario, clients=replace(scenario.clients, retry=retry))


def storm_in(scenario: Scenario) -> Storm:
    """Simulate a scenario whose clients lose patience."""
    assert scenario.clients is not None
    outcomes = simulate(scenario).outcomes
    order = np.argsort(outcomes.arrived_s, kind="stable")
    good = kept(outcomes, SLO(e2e_s=scenario.clients.timeout_s))[order]
    return Storm(outcomes.arrived_s[order], good, outcomes.attempts[order].astype(float), LARKSPUR_S)


@functools.cache
def larkspur_storm(clients: str) -> Storm:
    """Simulate the storm with "naive" or "budgeted" clients, once."""
    return storm_in(larkspur_scenario(clients))


# --- situations ----------------------------------------------------------------------------------------------------

SITUATIONS = {
    "a": "5,000 phones lost their connection at once; all call again after exactly 2 s, then 4 s, then 8 s.",
    "b": "One GPU of three is dead. A third of all first tries go there and time out before going elsewhere.",
    "c": "A prompt is longer than the model allows. The gateway answers 400; the client sends it again, nine times.",
    "d": "The phone tries three times, the web server three times, the gateway three times.",
    "e": "Each client tries at most twice, and the retries are spread out; when all tries fail, the load still "
    "doubles.",
    "f": "The waits double without end: after a night's fault, some clients would come back nine hours later.",
    "g": "A failed client sends its request again at once, as fast as the network allows.",
    "h": "The answer broke off after 200 words, which the customer has read. The client starts it again from the first "
    "word.",
}
REMEDIES = {
    "backoff": "wait longer after each failure",
    "jitter": "draw the wait at random",
    "cap": "bound the longest wait",
    "budget": "bound the retries of all clients together by a share of the requests",
    "breaker": "stop calling the replica that fails, and later let a few calls through",
    "one layer": "let one layer retry, and all others pass the error on",
    "no retry": "do not send it again",
}
