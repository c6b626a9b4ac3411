"""Chapter 5's experiments: a demand curve, a fleet that needs minutes to grow, and the autoscaler that sizes it.

Larkspur is the course's fictional service: an assistant for a chain of garden centres. `play` is a fluid model of a few
lines: one queue, and replicas that all serve equally fast; the autoscalers, machines and prices are the framework's.
`sale` runs the real scheduler in virtual time. Contains no answers.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from miniserve.control.autoscaler import Autoscaler, Reactive, count, wanted_now, whole
from miniserve.control.forecast import Holt
from miniserve.control.predictive import Predictive
from miniserve.control.steady import Steady
from miniserve.course.chapters.ch01_systems_problem.lab import BROKEN_SHARE, PROMISE_S, PROMISED_SHARE, machine, model
from miniserve.course.figures import line_style, new_figure, show
from miniserve.course.tables import as_text
from miniserve.hardware.prices import ColdStart
from miniserve.observe.goodput import attainment, kept
from miniserve.observe.outcomes import Floats
from miniserve.planning.clairvoyant import hours, minutes_of, plan
from miniserve.scenario import load
from miniserve.sim.result import SimResult
from miniserve.sim.run import simulate
from miniserve.types import FleetView, ReplicaState, ReplicaView, ScaleTo
from miniserve.workload.rates import Piecewise

__all__ = ["BROKEN_SHARE", "PROMISED_SHARE", "PROMISE_S", "machine", "model"]

SCENARIO = Path(__file__).resolve().parents[4] / "data" / "scenarios" / "larkspur_sale.toml"
Points = Sequence[tuple[float, float]]  # (minute, requests per second); straight lines between them

# --- the model -----------------------------------------------------------------------------------------------------

EACH_PER_S = 0.5  # requests that one replica of the model serves in a second
STAY_S = 20.0  # how long a request stays in a replica that is not overloaded
FULL_FRACTION = 0.8  # how full a replica is meant to be
ROOM_FRACTION = 1 / FULL_FRACTION - 1  # headroom: by how much demand may grow before all are full
TARGET = FULL_FRACTION * EACH_PER_S * STAY_S  # requests in a replica that is that full
PERIOD_S = 15.0  # between two looks of an autoscaler
HORIZON_S = 180.0
LEVEL, TREND = 0.8, 0.8
MOST_REPLICAS = 40
LATE = {"facecolor": "#dddddd", "edgecolor": "#1a1a1a", "hatch": "//", "linewidth": 0.0}
WORD_SPREADS = ((0, 1), (5, 1.3), (10, 1.8), (15, 2.7), (20, 4.5), (25, 9), (40, 9))
JUMP = ((0, 1), (10, 1), (10, 4), (40, 4))  # to four times the demand, at once
LATE_USD = 0.05  # what Larkspur refunds for an answer that began too late


def cold_start() -> ColdStart:
    """Return the cold start of one of Larkspur's GPUs, from the price list."""
    return machine().cold_start(model())


def reactive(spares: int = 0) -> Steady:
    """Return an autoscaler that goes by the requests now in the fleet and keeps `spares` extra replicas."""
    return Steady(Reactive(target=TARGET), max_replicas=MOST_REPLICAS, warm_pool=spares)


def predictive(horizon_s: float = HORIZON_S) -> Steady:
    """Return an autoscaler that extends the last minutes in a straight line, and never goes below `reactive`."""
    ahead = Predictive(
        replica_per_s=FULL_FRACTION * EACH_PER_S,
        forecast=Holt(level_weight=LEVEL, trend_weight=TREND),
        horizon_s=horizon_s,
        deviations=0.0,  # demand is a liquid here: no randomness to allow for
        floor=Reactive(target=TARGET),
    )
    return Steady(ahead, max_replicas=MOST_REPLICAS)


@dataclass(frozen=True, slots=True, eq=False)
class Played:
    """How a fleet met a demand curve, second by second and in total."""

    demand_per_s: Floats
    ready: Floats
    starting: Floats
    waiting: Floats
    wait_s: Floats  # of the requests that arrive in each second

    @property
    def requests(self) -> float:
        return float(self.demand_per_s.sum())

    @property
    def late(self) -> float:
        """Requests that wait longer than promised."""
        return float(self.demand_per_s[self.wait_s > PROMISE_S].sum())

    @property
    def kept_share(self) -> float:
        return 1 - self.late / self.requests

    @property
    def usd(self) -> float:
        """The bill for the machines, including those that are still starting."""
        return float((self.ready + self.starting).sum()) / 3600 * machine().usd_per_hour

    @property
    def refunds_usd(self) -> float:
        return self.late * LATE_USD

    def __repr__(self) -> str:
        return (
            f"{self.kept_share:.1%} kept the promise, {self.late:,.0f} late; "
            f"machines {self.usd:.2f} USD, refunds {self.refunds_usd:.2f} USD"
        )


def curve_of(points: Points) -> Piecewise:
    """Return straight lines between points of (minute, requests per second); two at the same minute are a jump."""
    return Piecewise(tuple((minute * 60, per_s) for minute, per_s in points))


def play(points: Points, autoscaler: Autoscaler, *, spares: int = 0) -> Played:
    """Run the demand of `points` against a fleet that `autoscaler` sizes, second by second.

    The fleet begins large enough for the first rate, plus `spares`. One queue serves in order of arrival. A replica
    that is taken away leaves at once, because the others carry on with its requests.
    """
    curve, seconds, cold_s = curve_of(points), round(points[-1][0] * 60), cold_start().nominal_s
    demand = np.array([curve.rate_at(second + 0.5) for second in range(seconds)])
    ready = whole(demand[0] / (FULL_FRACTION * EACH_PER_S)) + spares
    starting: list[float] = []  # when each will be ready
    came = served = running = 0.0
    rows = []
    for second in range(seconds):
        ready += sum(ready_s <= second for ready_s in starting)
        starting = [ready_s for ready_s in starting if ready_s > second]
        if second % PERIOD_S == 0:
            view = _view(ready, len(starting), came - served, running, round(came))
            ready, starting = _resized(autoscaler, float(second), view, ready, starting, cold_s)
        came += demand[second]
        now_served = min(came - served, ready * EACH_PER_S)
        served, running = served + now_served, now_served * STAY_S
        rows.append((ready, len(starting), came - served, served))
    of_ready, of_starting, waiting, done = np.array(rows).T
    return Played(demand, of_ready, of_starting, waiting, _waits(demand, done, ready * EACH_PER_S))


def _view(ready: int, starting: int, waiting: float, running: float, came: int) -> FleetView:
    inside = round(waiting + running)
    shares = [inside // ready + (i < inside % ready) for i in range(ready)]
    there = [ReplicaView(f"l4-{i}", outstanding=share) for i, share in enumerate(shares)]
    coming = [ReplicaView(f"new-{i}", ReplicaState.STARTING) for i in range(starting)]
    return FleetView((*there, *coming), requests=came)


def _resized(
    autoscaler: Autoscaler, now_s: float, view: FleetView, ready: int, starting: list[float], cold_s: float
) -> tuple[int, list[float]]:
    wanted = wanted_now(view)
    for action in autoscaler.tick(now_s, view):
        if isinstance(action, ScaleTo):
            wanted = max(1, action.replicas)
    more = wanted - ready - count(view, ReplicaState.STARTING)
    if more >= 0:
        return ready, [*starting, *[now_s + cold_s] * more]
    kept_starting = starting[: max(0, len(starting) + more)]  # the youngest go first, then ready ones
    return min(ready, wanted), kept_starting


def _waits(demand: Floats, done: Floats, last_per_s: float) -> Floats:
    """Return how long the arrivals of each second wait: until as many requests are served as had arrived by then."""
    came = np.cumsum(demand)
    seconds = np.arange(1, len(demand) + 1)
    left = came[-1] - done[-1]
    ends = np.append(seconds, seconds[-1] + left / last_per_s + 1e-9)
    through = np.interp(came - 1e-9, np.append(done, came[-1]), ends)
    waits: Floats = np.maximum(0.0, through - seconds)
    return waits


def draw_played(runs: Mapping[str, Played]) -> None:
    """Draw demand against what the ready replicas can serve, one panel per run."""
    figure, axes = new_figure("Demand and capacity", x="minute", y="requests per second", panels=max(2, len(runs)))
    for ax, (name, run) in zip(axes, runs.items(), strict=False):
        minutes = np.arange(0, len(run.demand_per_s), 15) / 60
        ax.plot(minutes, run.demand_per_s[::15], **line_style(0), label="demand")
        ax.step(minutes, run.ready[::15] * EACH_PER_S, where="post", **line_style(1), label="can be served")
        late = run.wait_s[::15] > PROMISE_S
        ax.fill_between(minutes, 0, run.demand_per_s[::15], where=late, **LATE, label="late")
        ax.set_title(name, fontsize=10)
        ax.legend(loc="upper left", fontsize=8)
    most_per_s = max(max(run.demand_per_s.max(), run.ready.max() * EACH_PER_S) for run in runs.values())
    axes[0].set_ylim(0, 1.5 * most_per_s)  # room for the legend
    said = "; ".join(
        f"{name}: {run.kept_share:.1%} keep the promise, at most {as_text(float(run.waiting.max()))} wait, "
        f"machines cost {run.usd:.2f} USD"
        for name, run in runs.items()
    )
    show(figure, alt=f"Demand over time and what the ready replicas can serve. {said}.")


def growth_in_cold_start(points: Points) -> float:
    """Return the largest growth of demand within one cold start, as a fraction of what it was before."""
    curve, cold_s = curve_of(points), cold_start().nominal_s
    seconds = range(max(1, round(points[-1][0] * 60 - cold_s)))
    return max(curve.rate_at(second + cold_s) / curve.rate_at(second) for second in seconds) - 1


def clairvoyant_usd(points: Points) -> float:
    """Return the bill of an oracle that knows the demand and asks for each replica one cold start ahead."""
    rates = minutes_of(curve_of(points).rate_at, points[-1][0] * 60)
    capacity = {size: size * EACH_PER_S for size in (1, MOST_REPLICAS)}
    return hours(plan(rates, capacity, cold_start().nominal_s)) * machine().usd_per_hour


# --- the fleet that is worked out on paper -------------------------------------------------------------------------

PAPER_CAME = (60, 90, 120, 120, 120, 120, 120)  # requests that come in minute 1, 2, ...
PAPER_EACH = 30  # requests that one replica serves in a minute
PAPER_REPLICAS = 2  # ready in minute 1
PAPER_COLD_MIN = 2  # whole minutes that a replica misses after the one in which it was asked for

# --- Larkspur, on the real scheduler -------------------------------------------------------------------------------


@functools.cache
def sale(how: str) -> SimResult:
    """Simulate Larkspur's spring sale; `how` is "reactive" or "predictive" (a few seconds, once)."""
    return simulate(load(SCENARIO, variant=how))


def kept_between(run: SimResult, start_s: float, end_s: float) -> float:
    """Return the share of requests arriving in [start_s, end_s) that got their first token as promised."""
    those = (run.outcomes.arrived_s >= start_s) & (run.outcomes.arrived_s < end_s)
    return float(kept(run.outcomes, run.slo)[those].mean())


def kept_in_all(run: SimResult) -> float:
    return attainment(run.outcomes, run.slo)


def draw_sale(runs: Mapping[str, SimResult], every_s: float = 60.0) -> None:
    """Draw how many replicas are ready over time, one curve per run."""
    figure, ax = new_figure("Ready replicas during the sale", x="minute", y="replicas")
    ends = []
    for i, (name, run) in enumerate(runs.items()):
        times, sizes = (np.asarray(values) for values in run.series["replicas"])
        times, sizes = np.append(times, run.outcomes.arrived_s.max()), np.append(sizes, sizes[-1])
        ax.step(times / 60, sizes, where="post", **line_style(i), label=name)
        ends.append(f"{name}: {kept_in_all(run):.1%} in time, at most {sizes.max():.0f} replicas")
    ax.legend(loc="upper left")
    show(figure, alt=f"Replicas that are ready, over the time of the sale. {'; '.join(ends)}.")


# --- situations ----------------------------------------------------------------------------------------------------

SITUATIONS = {
    "a": "The shops open at 9:00 sharp on weekdays, and demand triples within a minute.",
    "b": "Demand grows by a twentieth per cold start, and the replicas are kept four fifths full.",
    "c": "Now and then a television programme mentions Larkspur: demand doubles within seconds, unannounced.",
    "d": "Word is spreading. Nobody knew when it would start; demand now doubles every five minutes.",
    "e": "A cold start takes 130 s, and 100 s of that go into fetching the weights from a slow network disk.",
    "f": "Demand is ten times what the fleet could serve with every GPU that the cloud has to offer.",
    "g": "Demand goes up and down by a tenth every four minutes. It always stays within the replicas' headroom.",
    "h": "The newsletter goes out on Thursday at 18:00, and marketing has told everyone.",
}
MEASURES = {
    "by load": "scale by the current load, and nothing else",
    "by trend": "scale by a forecast from the last minutes",
    "by the clock": "ask for replicas at a time set in advance",
    "spares": "keep replicas ready that aren't needed yet",
    "faster start": "make the cold start shorter",
    "refuse": "turn requests away so that the others are served",
}
