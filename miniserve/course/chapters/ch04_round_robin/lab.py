"""Chapter 4's experiments: a fleet of paper replicas, the same traces on the real scheduler, a long prompt in the way.

A paper replica writes one answer at a time, in order of arrival, at `TOKENS_PER_S`. So a run takes a few additions per
request and can be done by hand. Contains no answers.
"""

from __future__ import annotations

import functools
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

import numpy as np

from miniserve.config import SchedulerConfig
from miniserve.course.chapters.ch12_balancer import lab as ch12
from miniserve.course.figures import BLUE, CARD, VERMILION, line_style, new_figure, show
from miniserve.course.tables import as_text, table
from miniserve.engine.step_time import StepTimeModel
from miniserve.observe.outcomes import Floats, Outcomes
from miniserve.observe.percentiles import percentile, percentiles
from miniserve.scenario.model import EngineSection, FleetSection, PolicySection, ReplicaGroup, RunSection, Scenario
from miniserve.seeds import bucket, generator
from miniserve.sim.run import simulate
from miniserve.toml.reader import Recipe
from miniserve.workload.lengths import Constant
from miniserve.workload.requests import Workload

TOKENS_PER_S = 50.0  # of a paper replica
REPLICAS = 4
LATE_S = 10.0  # between two reports, for the balancer that looks too late
PAPER = (
    (0, 2000),
    (1, 100),
    (2, 50),
    (4, 100),
    (5, 500),
    (7, 50),
    (8, 50),
    (20, 100),
)  # the eight requests of exercise 4.1
SHORTEST, LONGEST = 10, 2000  # tokens of an answer

Trace = Sequence[Sequence[float]]  # (second of arrival, tokens of the answer), in the order of arrival

# --- what a balancer sees, and six ways to choose ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """What a balancer sees of one replica."""

    requests: int  # unfinished: the one being answered, and those waiting
    tokens_left: float  # still to be written for all of these
    pool_tokens: float  # in its memory, of the answer in progress; waiting requests hold none


class Fleetlike(Protocol):
    """Replicas by place."""

    def __len__(self) -> int: ...
    def __getitem__(self, place: int, /) -> Seen: ...


Choose = Callable[[int, Fleetlike], int]  # (number of the request, what is seen) -> place of a replica


def by_turns(number: int, seen: Fleetlike) -> int:
    return number % len(seen)


def by_lot(number: int, seen: Fleetlike) -> int:
    return bucket("lot", number, buckets=len(seen))


def fewest_requests(number: int, seen: Fleetlike) -> int:
    return min(range(len(seen)), key=lambda place: seen[place].requests)


def fewest_tokens(number: int, seen: Fleetlike) -> int:
    return min(range(len(seen)), key=lambda place: seen[place].tokens_left)


def emptiest_pool(number: int, seen: Fleetlike) -> int:
    return min(range(len(seen)), key=lambda place: seen[place].pool_tokens)


def better_of_two(number: int, seen: Fleetlike) -> int:
    count = len(seen)
    one = bucket("one", number, buckets=count)
    other = (one + 1 + bucket("other", number, buckets=count - 1)) % count
    return one if seen[one].requests <= seen[other].requests else other


# --- the paper fleet -----------------------------------------------------------------------------------------------


class _Replica:
    """Answers one request after another."""

    def __init__(self) -> None:
        self._answers: deque[tuple[float, float]] = deque()  # (begins, ends), unfinished ones
        self._free_s = 0.0

    def seen(self, now_s: float) -> Seen:
        while self._answers and self._answers[0][1] <= now_s + 1e-9:
            self._answers.popleft()
        if not self._answers:
            return Seen(0, 0.0, 0.0)
        written_s = now_s - self._answers[0][0]
        return Seen(len(self._answers), (self._free_s - now_s) * TOKENS_PER_S, written_s * TOKENS_PER_S)

    def take(self, now_s: float, tokens: float) -> tuple[float, float]:
        """Return when the answer begins and ends."""
        begins_s = max(now_s, self._free_s)
        self._free_s = begins_s + tokens / TOKENS_PER_S
        self._answers.append((begins_s, self._free_s))
        return begins_s, self._free_s


class _Now:
    """The fleet at this moment; a replica is inspected when a balancer indexes it."""

    def __init__(self, replicas: Sequence[_Replica]) -> None:
        self._replicas = replicas
        self.at_s = 0.0

    def __len__(self) -> int:
        return len(self._replicas)

    def __getitem__(self, place: int, /) -> Seen:
        return self._replicas[place].seen(self.at_s)


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """One row per request, in the order of arrival."""

    arrived_s: Floats
    begun_s: Floats
    ended_s: Floats
    place: tuple[int, ...]  # of the replica

    @property
    def wait_s(self) -> Floats:
        return np.asarray((self.begun_s - self.arrived_s).round(9), dtype=np.float64)  # 0 is 0, not 7e-15

    @property
    def p99_wait_s(self) -> float:
        return float(percentile(self.wait_s.tolist(), 99))

    def held(self, place: int, times_s: Floats) -> Floats:
        """Return how many unfinished requests a replica held at each time."""
        mine = np.asarray(self.place) == place
        came, left = np.sort(self.arrived_s[mine]), np.sort(self.ended_s[mine])
        counts = np.searchsorted(came, times_s, "right") - np.searchsorted(left, times_s, "right")
        return np.asarray(counts, dtype=np.float64)


def serve(trace: Trace, choose: Choose, *, replicas: int = REPLICAS, reports_every_s: float = 0.0) -> Served:
    """Send each request where `choose` says, given the fleet as it is now or as it was at the last report."""
    members = [_Replica() for _ in range(replicas)]
    now, report, next_s = _Now(members), tuple[Seen, ...](), 0.0
    rows, places = [], []
    for number, (at_s, tokens) in enumerate(trace):
        now.at_s = at_s
        if reports_every_s and at_s >= next_s:
            report = tuple(member.seen(at_s) for member in members)
            next_s = (at_s // reports_every_s + 1) * reports_every_s
        place = choose(number, report if reports_every_s else now)
        members[place].seen(at_s)  # forgets what has ended
        rows.append((at_s, *members[place].take(at_s, tokens)))
        places.append(place)
    arrived_s, begun_s, ended_s = np.asarray(rows, dtype=np.float64).T
    return Served(arrived_s, begun_s, ended_s, tuple(places))


def p99_wait_s(trace: Trace, choose: Choose, reports_every_s: float = 0.0) -> float:
    """Return the p99 of the wait on four paper replicas."""
    return serve(trace, choose, reports_every_s=reports_every_s).p99_wait_s


def compare(trace: Trace) -> None:
    """Show how four balancers do on a trace, on four paper replicas."""
    runs = {
        "takes turns": serve(trace, by_turns),
        "draws lots": serve(trace, by_lot),
        "looks too late": serve(trace, fewest_requests, reports_every_s=LATE_S),
        "counts requests": serve(trace, fewest_requests),
    }
    wait_table(runs, f"{len(trace)} requests on {REPLICAS} replicas")


def wait_table(runs: Mapping[str, Served], caption: str) -> None:
    """Show mean, p50 and p99 of the wait."""
    rows = [(float(run.wait_s.mean()), *percentiles(run.wait_s.tolist(), (50, 99))) for run in runs.values()]
    heads = ("mean wait (s)", "p50 (s)", "p99 (s)")
    table({"balancer": list(runs), **{head: [row[i] for row in rows] for i, head in enumerate(heads)}}, caption)


def random_trace(
    requests: int, per_s: float, long_share: float, short_s: float, long_s: float, seed: int = 4
) -> list[tuple[float, float]]:
    """Return requests that arrive at random times and whose answers take either `short_s` or `long_s`."""
    rng, at_s, trace = generator(seed, "two sizes"), 0.0, []
    for _ in range(requests):
        at_s += rng.expovariate(per_s)
        trace.append((at_s, TOKENS_PER_S * (long_s if rng.random() < long_share else short_s)))
    return trace


# --- many replicas -------------------------------------------------------------------------------------------------

MANY, MANY_LOAD = 50, 0.9


@functools.cache
def mean_time_s(choose: Choose, requests: int = 120_000) -> float:
    """Return the mean time from arrival to the end of the answer, on fifty replicas that are 90 % busy.

    Answer times are exponential with a mean of 1 s. The first fifth, while the fleet fills up, is left out.
    """
    served = serve(list(_memoryless(requests, generator(4, "memoryless"))), choose, replicas=MANY)
    times_s = served.ended_s - served.arrived_s
    return float(times_s[requests // 5 :].mean())


def _memoryless(requests: int, rng: Random) -> Iterator[tuple[float, float]]:
    at_s = 0.0
    for _ in range(requests):
        at_s += rng.expovariate(MANY * MANY_LOAD)
        yield at_s, TOKENS_PER_S * rng.expovariate(1.0)


# --- the same traces on the real scheduler -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Listed:
    """Arrivals at given times."""

    at_s: tuple[float, ...]

    @property
    def rate_per_s(self) -> float:
        return len(self.at_s) / max(self.at_s[-1], 1.0)

    def rate_at(self, time_s: float) -> float:
        return self.rate_per_s

    def times(self, rng: Random) -> Iterator[float]:
        return iter(self.at_s)


class _InOrder:
    """Gives lengths in order, whatever number is drawn."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self.mean_tokens = sum(tokens) / len(tokens)
        self._next = iter(tokens).__next__

    def at(self, u: float) -> int:
        return self._next()


def replay(trace: Trace, make: ch12.MakeBalancer) -> Outcomes:
    """Run a trace on four replicas with the project's real scheduler, limited to one slot as on paper."""
    at_s, tokens = zip(*trace, strict=True)
    step = StepTimeModel(1 / TOKENS_PER_S, 0.0, 0.0, 0.0, 0.0)
    scenario = Scenario(
        Workload(_Listed(tuple(map(float, at_s))), prompt=Constant(1), output=_InOrder([int(each) for each in tokens])),
        RunSection(requests=len(trace)),
        FleetSection((ReplicaGroup("gpu", REPLICAS, step_time=step),)),
        EngineSection(SchedulerConfig(max_running=1, turn_tokens=None)),
        PolicySection(
            Recipe(getattr(make, "__name__", "balancer"), make), first_token_s="off", first_token_share="off"
        ),
    )
    return simulate(scenario, 1).outcomes


def replay_table(traces: Mapping[str, Trace], makers: Mapping[str, ch12.MakeBalancer]) -> None:
    """Show the p99 of the time to first token of each trace under each balancer, on the real scheduler."""
    columns = {
        f"{name} (s)": [percentile(replay(trace, make).ttft_s, 99) for make in makers.values()]
        for name, trace in traces.items()
    }
    if columns:
        table({"balancer": list(makers), **columns}, "p99 of the time to first token, on the real scheduler")


# --- Larkspur ------------------------------------------------------------------------------------------------------


@functools.cache
def afternoon(make: ch12.MakeBalancer) -> Outcomes:
    """Simulate chapter 12's afternoon of Larkspur: four GPUs with the real scheduler, 1,000 chats and articles."""
    return ch12.run(make)


def shares(outcomes: Outcomes) -> None:
    """Show what each GPU got, and how its customers fared."""
    names = sorted(outcomes.replicas)
    rows = [outcomes.where(outcomes.replica == outcomes.replicas.index(name)) for name in names]
    table(
        {
            "GPU": names,
            "requests": [len(row) for row in rows],
            "tokens written": [int(row.output_tokens.sum()) for row in rows],
            "p50 (s)": [percentile(row.ttft_s, 50) for row in rows],
            "p99 (s)": [percentile(row.ttft_s, 99) for row in rows],
        },
        "Larkspur's afternoon, by turns: what each GPU got, and its times to first token",
    )
    p50_s, p99_s = percentiles(outcomes.ttft_s, (50, 99))
    print(f"all four together: p50 {as_text(p50_s)} s, p99 {as_text(p99_s)} s")


def afternoon_table(makers: Mapping[str, ch12.MakeBalancer]) -> None:
    """Show Larkspur's afternoon under each balancer: times to first token, and the share sent past a free place."""
    runs = [afternoon(make) for make in makers.values()]
    p50s, p99s = zip(*(percentiles(run.ttft_s, (50, 99)) for run in runs), strict=True)
    sent_past = [100 * past_a_place(run) for run in runs]
    columns = {"p50 (s)": p50s, "p99 (s)": p99s, "sent past a free place (%)": sent_past}
    table({"balancer": list(makers), **columns}, "Time to first token, Larkspur's afternoon")


def past_a_place(outcomes: Outcomes, places: int = ch12.SLOTS) -> float:
    """Return the share of requests sent to a replica whose places were all taken while another had a free one."""
    when = outcomes.arrived_s
    here = (outcomes.arrived_s < when[:, None]) & (when[:, None] < outcomes.ended_s)  # [newcomer, one in the fleet]
    held = np.array([(here & (outcomes.replica == i)).sum(axis=1) for i in range(len(outcomes.replicas))])
    own = held[outcomes.replica, np.arange(len(when))]
    return float(((own >= places) & (held.min(axis=0) < places)).mean())


# --- figures -------------------------------------------------------------------------------------------------------


def draw_answers(runs: Mapping[str, Served], names: str = "AB") -> None:
    """Draw when each request waits and when it is answered, one panel per balancer."""
    figure, axes = new_figure("Eight requests", x="time (s)", y="request", panels=len(runs), size=(9.0, 3.6))
    last_s = max(float(run.ended_s.max()) for run in runs.values())
    for ax, (name, run) in zip(axes, runs.items(), strict=True):
        numbers = np.arange(1, len(run.place) + 1)
        ax.barh(numbers, run.wait_s, left=run.arrived_s, height=0.5, facecolor=CARD, edgecolor=VERMILION, hatch="//")
        ax.barh(numbers, run.ended_s - run.begun_s, left=run.begun_s, height=0.7, facecolor=BLUE)
        for number, place, end_s in zip(numbers, run.place, run.ended_s, strict=True):
            ax.text(end_s + 0.7, number, names[place], va="center", fontsize=9)
        ax.set_title(name, fontsize=10)
        ax.set_yticks(numbers)
        ax.set_xlim(0, 1.1 * last_s)
    axes[0].invert_yaxis()
    sums = "; ".join(f"{name}: {as_text(float(run.wait_s.sum()))} s of waiting in all" for name, run in runs.items())
    show(
        figure,
        alt=(
            "One row per request: hatched while it waits, solid while it is answered; the letter at its end names "
            f"the replica. {sums}."
        ),
    )


def draw_held(runs: Mapping[str, Served], until_s: float) -> None:
    """Draw how many requests each replica holds over time, one panel per balancer."""
    figure, axes = new_figure(
        "Requests in each replica", x="time (s)", y="unfinished requests", panels=len(runs), size=(9.0, 3.2)
    )
    times_s = np.linspace(0, until_s, 241)
    most = {}
    for ax, (name, run) in zip(axes, runs.items(), strict=True):
        held = [run.held(place, times_s) for place in range(REPLICAS)]
        for place, counts in enumerate(held):
            ax.step(times_s, counts, where="post", label=f"replica {place}", **line_style(place))
        ax.set_title(name, fontsize=10)
        most[name] = max(counts.max() for counts in held)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=REPLICAS, frameon=False)
    ends = "; ".join(f"{name}: at most {high:.0f} in one replica" for name, high in most.items())
    show(figure, alt=f"Unfinished requests in four replicas over {until_s:g} s. {ends}.")


# --- a long prompt in the way --------------------------------------------------------------------------------------


def step_costs_ms() -> tuple[float, float]:
    """Return what a step costs on one of Larkspur's GPUs: the fixed part and the part per token, rounded."""
    step = ch12.one_replica(512)[1]
    return round(1000 * step.base_s, 1), round(1000 * step.per_prefill_token_s, 3)


@dataclass(frozen=True, slots=True)
class Behind:
    """How long a long prompt made everyone wait, in milliseconds."""

    longest_pause_ms: float  # of a reader's text
    long_first_ms: float  # until the long prompt's own first token
    short_first_ms: float  # until that of a short prompt right behind it


def behind_a_long_prompt(max_batch_tokens: int, readers: int = 48, long_tokens: int = 2000) -> Behind:
    """Start readers' answers on the real scheduler, then add a long prompt with a short one right behind it."""
    scheduler, step_time = ch12.one_replica(max_batch_tokens)
    for i in range(readers):
        scheduler.add(ch12.generation(f"reader-{i}", prompt_tokens=16, answer_tokens=400))
    now_s, came_s, last_s, pauses, first = 0.0, 0.0, 0.0, [0.0], dict[str, float]()
    for number in itertools.count():
        if number == 60:  # by now all readers' answers are being written
            came_s = now_s
            scheduler.add(ch12.generation("long", long_tokens, 2, now_s))
            scheduler.add(ch12.generation("short", 50, 2, now_s + 1e-6))
        step = scheduler.schedule(now_s)
        now_s += step_time.seconds(step)
        names = {sequence.request_id for sequence in scheduler.commit(step, itertools.repeat(0))}
        first.update({name: now_s for name in names if name not in first})
        if "reader-0" in names:
            pauses += [now_s - last_s] if number >= 60 else []
            last_s = now_s
        if "short" in first and "long" in first:
            break
    return Behind(1000 * max(pauses), 1000 * (first["long"] - came_s), 1000 * (first["short"] - came_s))


# --- situations ----------------------------------------------------------------------------------------------------

SITUATIONS = {
    "a": "Captions of exactly 40 tokens each arrive at regular intervals and keep equal replicas just busy. There "
    "are no reports.",
    "b": "One gateway sends chats; answers take 10 to 600 tokens, and nobody can say in advance how many.",
    "c": "One gateway sends a batch job; each request states exactly how many tokens it will get, 10 to 2,000.",
    "d": "Sixteen gateways see the same reports, which are up to three seconds old.",
    "e": "Readers' text freezes for half a second whenever the same replica reads someone's document.",
    "f": "All replicas have queues all afternoon, and the queues are equally long.",
    "g": "There are 3,000 replicas, and looking at all of them for each request takes longer than you can afford.",
    "h": "Two equal replicas serve answers of one length, one after another; you want the simplest thing that works.",
}
REMEDIES = {
    "turns": "take turns",
    "requests": "count unfinished requests, and pick the replica with the fewest",
    "tokens": "count the tokens still to be written, and pick the replica with the fewest",
    "two": "draw two replicas, and pick the better one",
    "chunks": "read long prompts in chunks",
    "replicas": "rent more replicas",
}
