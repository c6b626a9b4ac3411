"""Chapter 1's experiments: Larkspur's day and its bill, a crowd in front of one replica, a load and its promise.

Larkspur is the course's fictional service: an assistant for a chain of garden centres. Its day is chapter 6's, its
prices are those of `data/hardware.toml`, and every replica runs the real scheduler; only time is simulated. The crowd
asks the machine whose step times were measured. Contains no answers.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import simpy

from miniserve.clock import monotonic
from miniserve.course.chapters.ch06_percentiles.lab import SCENARIO
from miniserve.course.figures import line_style, new_figure, show
from miniserve.course.tables import as_text, table
from miniserve.hardware.prices import Hardware, ModelSize, PriceList, load_price_list
from miniserve.hardware.spec import replica_spec
from miniserve.observe.goodput import SLO, kept
from miniserve.observe.outcomes import Floats
from miniserve.observe.percentiles import percentile
from miniserve.scenario import load
from miniserve.scenario.model import FleetSection, ReplicaGroup, RunSection, Scenario
from miniserve.sim.meter import Meter
from miniserve.sim.replica import SimAttempt, SimReplica
from miniserve.sim.result import SimResult
from miniserve.sim.run import simulate
from miniserve.types import Request, SamplingParams
from miniserve.workload.arrivals import Poisson
from miniserve.workload.requests import TOKENS_PER_CHAT, Workload

if TYPE_CHECKING:
    from miniserve.engine.engine import Engine

HARDWARE, MODEL = "l4", "llama-3.1-8b"  # Larkspur's; names of data/hardware.toml
TEST_HARDWARE, TEST_MODEL = "cpu-2core", "smollm2-135m"  # the machine whose step times were measured
CROWD, PROMPT_TOKENS, ANSWER_TOKENS = 500, 60, 40
PROMISE_S, PROMISED_SHARE = 4.0, 0.99  # Larkspur's promise: this share gets the first token within this time
BROKEN_SHARE = 0.95  # below this, five times as many wait too long as promised: that is no accident
FINE_MEAN_S = 2.0  # a mean time to first token that nobody would complain about
REQUESTS = 1000  # of a run under load

prices = functools.cache(load_price_list)


def machine(name: str = HARDWARE) -> Hardware:
    """Return a machine of the price list."""
    found: PriceList = prices()
    return found.machine(name)


def model(name: str = MODEL) -> ModelSize:
    """Return a model of the price list."""
    found: PriceList = prices()
    return found.model(name)


# --- Larkspur's day ------------------------------------------------------------------------------------------------


@functools.cache
def scenario() -> Scenario:
    """Return Larkspur's day: the file that chapter 6 also simulates."""
    return load(SCENARIO)


@functools.cache
def larkspur_day() -> SimResult:
    """Simulate the day (a few seconds, once), with a ledger of what caused its bill."""
    return simulate(scenario(), meter=Meter())


# --- a crowd in front of one replica -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Crowd:
    """Requests that all arrived at second 0: when each got its first token, and when its last."""

    first_s: Floats
    last_s: Floats
    answer_tokens: int

    def __repr__(self) -> str:
        return f"{len(self.last_s)} at once: all answered after {as_text(self.ends_s)} s"

    @property
    def ends_s(self) -> float:
        """When the last answer of all is complete."""
        return float(self.last_s.max())

    @property
    def tokens_per_s(self) -> float:
        return len(self.last_s) * self.answer_tokens / self.ends_s


@functools.cache
def at_once(
    count: int,
    *,
    hardware: str = TEST_HARDWARE,
    of_model: str = TEST_MODEL,
    running: int | None = None,
) -> Crowd:
    """Send `count` equal requests at once to one idle replica, with the real scheduler and modelled step times.

    `running` is how many answers it writes at the same time; by default, as many as the price list says.
    """
    spec = replica_spec(machine(hardware), model(of_model))
    scheduler = spec.scheduler if running is None else replace(spec.scheduler, max_running=running)
    env = simpy.Environment()
    replica = SimReplica(env, hardware, scheduler, spec.cache, spec.step_time, max_model_len=spec.max_model_len)
    attempts = [replica.submit(_request(i, of_model)) for i in range(count)]
    ended_s = np.zeros(count)

    def watch(place: int, attempt: SimAttempt) -> Generator[simpy.Event, Any, None]:
        yield attempt.ended
        ended_s[place] = env.now

    for place, attempt in enumerate(attempts):
        env.process(watch(place, attempt))
    env.run()
    return Crowd(np.array([attempt.first_token_s for attempt in attempts], dtype=float), ended_s, ANSWER_TOKENS)


def _request(i: int, of_model: str) -> Request:
    own = i * TOKENS_PER_CHAT  # no two prompts begin alike
    answer = SamplingParams(max_tokens=ANSWER_TOKENS, ignore_eos=True)
    return Request(f"q{i}", of_model, range(own, own + PROMPT_TOKENS), answer)


def compare(crowds: Mapping[str, Crowd], caption: str) -> None:
    """Show first and last tokens of several crowds, row by row."""
    rows = list(crowds.values())
    table(
        {
            "": list(crowds),
            "first token, median (s)": [percentile(crowd.first_s, 50) for crowd in rows],
            "first token, last of all (s)": [float(crowd.first_s.max()) for crowd in rows],
            "all complete (s)": [crowd.ends_s for crowd in rows],
            "tokens per second": [crowd.tokens_per_s for crowd in rows],
        },
        caption,
    )


def draw_crowd(crowds: Mapping[str, Crowd]) -> None:
    """Draw how many answers are complete over time, one curve for each crowd."""
    figure, ax = new_figure(
        "How many have their answer?", x="seconds after all asked", y="complete answers", size=(7.2, 3.2)
    )
    for i, (name, crowd) in enumerate(crowds.items()):
        ordered = np.sort(crowd.last_s)
        shown = np.unique(np.linspace(0, len(ordered) - 1, 60).astype(int))
        ax.step(ordered[shown], shown + 1, where="post", label=name, **line_style(i))
    ax.axvline(PROMISE_S, **line_style(5), label=f"{PROMISE_S:g} s")
    ax.legend(loc="lower right")
    ends = "; ".join(
        f"{name}: all {len(crowd.last_s)} after {as_text(crowd.ends_s)} s" for name, crowd in crowds.items()
    )
    most = max(len(crowd.last_s) for crowd in crowds.values())
    show(figure, alt=f"Complete answers over time, curves that rise to {most}. {ends}. A mark at {PROMISE_S:g} s.")


# --- a load and its promise ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Load:
    """What a load did: the mean and the p99 of the time to first token, and the share within the promise."""

    mean_s: float
    p99_s: float
    within_share: float

    def __repr__(self) -> str:
        return (
            f"time to first token: mean {as_text(self.mean_s)} s, p99 {as_text(self.p99_s)} s; "
            f"{self.within_share:.1%} within {PROMISE_S:g} s"
        )


@functools.lru_cache(maxsize=64)
def under_load(arrivals_per_s: float, replicas: int) -> Load:
    """Simulate 1,000 requests of Larkspur's lengths at a steady rate on `replicas` of its GPUs."""
    group = ReplicaGroup("l4", replicas, hardware=HARDWARE)
    steady = Scenario(
        Workload(Poisson(arrivals_per_s)), RunSection(requests=REQUESTS, seed=1), FleetSection((group,), model=MODEL)
    )
    outcomes = simulate(steady).outcomes
    # a request that got no token waited to the end
    waited = np.where(np.isnan(outcomes.ttft_s), outcomes.e2e_s, outcomes.ttft_s)
    within = kept(outcomes, SLO(ttft_s=PROMISE_S))
    return Load(float(waited.mean()), percentile(waited, 99), float(within.mean()))


def draw_loads(loads: Mapping[float, Load], replicas: int) -> None:
    """Draw mean and p99 of the time to first token over the load."""
    figure, ax = new_figure(
        f"Time to first token on {replicas} GPUs", x="requests per second", y="time to first token (s)"
    )
    rates: Sequence[float] = list(loads)
    curves = {"mean": [found.mean_s for found in loads.values()], "p99": [found.p99_s for found in loads.values()]}
    for i, (name, values) in enumerate(curves.items()):
        ax.plot(rates, values, **line_style(i, markers=True), label=name)
    ax.axhline(PROMISE_S, **line_style(5), label=f"promise, {PROMISE_S:g} s")
    ax.set_yscale("log")
    ax.set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
    ax.minorticks_off()
    ax.legend(loc="upper left")
    said = "; ".join(
        f"at {rate:g} per second mean {as_text(found.mean_s)} s and p99 {as_text(found.p99_s)} s"
        for rate, found in loads.items()
    )
    show(
        figure,
        alt=f"Two curves that rise with the load, the p99 far above the mean: {said}.",
        data={"requests per second": rates, "mean (s)": curves["mean"], "p99 (s)": curves["p99"]},
    )


# --- a real replica ------------------------------------------------------------------------------------------------

REAL_PROMPT_TOKENS, REAL_ANSWER_TOKENS = 40, 24


@functools.cache
def _engine() -> Engine:
    from miniserve.course.chapters.start_here import (
        lab as start_here,  # torch takes seconds to import, and only real replicas need it
    )

    engine = start_here.small_engine("large", running=16, step_tokens=128, blocks=320)
    _serve(engine, 1, "warm-up", first_id=250)  # the first run compiles and allocates
    return engine


def real_crowd(count: int) -> Crowd:
    """Send `count` requests at once to the course's larger model, computed here and now."""
    return _serve(_engine(), count, f"of {count}", first_id=40 + count)


def gpu_crowds(counts: Sequence[int] = (1, 8, 32, 128)) -> None:
    """Send crowds to the same model on this machine's GPU, with Triton's attention; if there is none, say so."""
    from miniserve.course.chapters.start_here import lab as start_here
    from miniserve.engine import kernels

    if (reason := kernels.why_not("cuda")) is not None:
        print(f"Skipped: {reason}. Nothing later needs it.")
        return
    largest = max(counts)
    engine = start_here.small_engine(
        "large", running=largest, step_tokens=16 * largest, blocks=16 * largest, device="cuda"
    )
    _serve(engine, 1, "warm-up", first_id=250)
    firsts = itertools.accumulate(counts, initial=40)  # no two crowds begin alike either
    crowds = {
        f"{count} at once": _serve(engine, count, f"of {count}", first)
        for count, first in zip(counts, firsts, strict=False)
    }
    compare(crowds, "The same model on the GPU of this machine")


def _serve(engine: Engine, count: int, name: str, first_id: int) -> Crowd:
    from miniserve.course.chapters.start_here import lab as start_here

    text = start_here.tokenizer().encode("the quick brown fox jumps over the lazy dog and runs away " * 8)
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    begun_s = monotonic()
    for i in range(count):
        prompt = [first_id + i, *text[: REAL_PROMPT_TOKENS - 1]]  # no two begin alike
        engine.add(start_here.request(f"{name}, {i}", prompt, REAL_ANSWER_TOKENS, to_the_end=True))
    while engine.has_work:
        for event in engine.step():
            last[event.request_id] = monotonic() - begun_s
            first.setdefault(event.request_id, last[event.request_id])
    return Crowd(np.array(list(first.values())), np.array(list(last.values())), REAL_ANSWER_TOKENS)


# --- claims --------------------------------------------------------------------------------------------------------

CLAIMS = {
    "a": "At noon customers wait 20 s for the first word; at six in the morning the same questions take half a second.",
    "b": "The assistant says that tulip bulbs are planted in July, no matter who asks and how quiet it is.",
    "c": "One of forty GPUs dies about every other day, and each time some customers see an error.",
    "d": "The new version went to all customers at once; a wrong setting broke every answer for half an hour.",
    "e": "Drafts are fluent, but even with no hurry they list the wrong fertiliser for roses.",
    "f": "We pay for the GPUs all night, and from midnight to six hardly anyone asks.",
    "g": "Asked in Portuguese, it answers in Spanish, even on the developer's own machine.",
    "h": "The mean time to first token is 0.9 s, and one customer in fifty waits longer than promised.",
}
SIDES = {
    "model": "it would be just as wrong with one user and all the time in the world",
    "systems": "it comes from how many ask, how many machines there are, or how they are run",
}
