"""Chapter 6's experiments: a simulated day at Larkspur, which requests were slow, and what samples of it say.

Larkspur is the course's fictional service: an assistant for a chain of garden centres, on three GPUs. Over lunch one of
them throttles. Only makes figures and tables: the ideas are in the notebook's cells. Contains no answers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from miniserve.course.figures import line_style, new_figure, show
from miniserve.course.tables import as_text, table
from miniserve.observe.outcomes import Floats, Ints
from miniserve.observe.percentiles import percentile, percentiles, percentiles_of_sorted
from miniserve.scenario import load
from miniserve.seeds import generator
from miniserve.sim.run import simulate

SCENARIO = Path(__file__).resolve().parents[4] / "data" / "scenarios" / "larkspur_day.toml"
SLOW_S = 4.0  # Larkspur's promise: the first token within this time
UPPER_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # of the buckets in which three replicas counted their answers
COUNTS = {"A": (120, 200, 70, 9, 1, 0, 0), "B": (110, 205, 78, 7, 0, 0, 0), "C": (50, 80, 40, 12, 6, 8, 4)}

PROMISES = {
    "a": "Of all chat requests in a calendar day, 99 % get their first token within 4 s, measured at the gateway; a "
    "request that fails counts as too slow.",
    "b": "Over each calendar month, the average time to first token of all requests is at most 1 s.",
    "c": "Over each calendar day, the p99 of the time to first token of all requests is excellent.",
    "d": "The p95 of the time to first token of all requests is below 2 s.",
    "e": "Over each month, the mean of the 30 daily p99s of all requests is below 4 s.",
    "f": "Every single request, on every day, gets its first token within 4 s.",
    "g": "For every block of 20 requests, failed ones included, the p99 is below 4 s.",
    "h": "Of all requests answered in a day, 99 % get their first token within 4 s; errors are not counted.",
    "i": "Of all article drafts in a week, failed ones included, 95 % are complete within 60 s, measured at the "
    "client.",
}
OPTIONS = {
    "sound": "it can be kept, and a service that keeps it treats its customers well",
    "hides the tail": "it can be kept while some customers wait for ever",
    "names no limit": "nobody can say what would break it",
    "names no window": "nobody can say over what period to count",
    "averages percentiles": "its figure is a mean of percentiles",
    "can never be kept": "no real service is like that",
    "rests on too few": "chance alone breaks it",
    "leaves out failures": "you can keep it by refusing requests",
}


@dataclass(frozen=True, slots=True, eq=False)
class Day:
    """One row per request, in the order of arrival."""

    hour: Floats  # of arrival, 0 to 24
    ttft_s: Floats  # time to first token
    replica: Ints  # which GPU answered: a place in `replicas`
    replicas: tuple[str, ...]

    def __repr__(self) -> str:
        return f"a day of {len(self.ttft_s):,} requests on {', '.join(self.replicas)}"

    def of_replica(self, name: str) -> Floats:
        """Return the times to first token of the requests that this replica answered."""
        mine: Floats = self.ttft_s[self.replica == self.replicas.index(name)]
        return mine

    def between(self, start_hour: float, end_hour: float) -> Floats:
        """Return the times to first token of the requests that arrived in [start_hour, end_hour)."""
        then: Floats = self.ttft_s[(self.hour >= start_hour) & (self.hour < end_hour)]
        return then


@functools.cache
def larkspur_day() -> Day:
    """Simulate the day (a few seconds, once): the real scheduler and block manager in each replica, virtual time."""
    outcomes = simulate(load(SCENARIO)).outcomes
    order = np.argsort(outcomes.arrived_s, kind="stable")
    names = tuple(sorted(outcomes.replicas))
    place = np.asarray([names.index(name) for name in outcomes.replicas], dtype=np.int32)
    return Day(
        outcomes.arrived_s[order] / 3600,
        outcomes.ttft_s[order],
        place[outcomes.replica[order]],
        names,
    )


# --- figures -------------------------------------------------------------------------------------------------------


def draw_hours(day: Day) -> None:
    """Draw mean, p50 and p99 of each hour."""
    hours = list(range(24))
    rows = [day.between(hour, hour + 1) for hour in hours]
    curves = {
        "mean": [float(row.mean()) for row in rows],
        "p50": [percentile(row, 50) for row in rows],
        "p99": [percentile(row, 99) for row in rows],
    }
    figure, ax = new_figure("Time to first token, hour by hour", x="hour of the day", y="time to first token (s)")
    for i, (name, values) in enumerate(curves.items()):
        ax.plot(hours, values, **line_style(i, markers=True), label=name)
    _logarithmic(ax, (0.5, 1, 2, 5, 10, 20, 40))
    ax.set_xticks(range(0, 24, 3))
    ax.legend()
    worst = int(np.argmax(curves["p99"]))
    quiet = float(np.median(curves["p99"]))
    show(
        figure,
        alt=f"Three curves over 24 hours. The p50 stays near {as_text(float(np.median(curves['p50'])), 2)} s all day. "
        f"The p99 is near {as_text(quiet, 2)} s in most hours and {as_text(curves['p99'][worst])} s in the hour "
        f"from {worst}:00; the mean of that hour is {as_text(curves['mean'][worst])} s, of the others about 1 s.",
    )


def draw_tail(day: Day) -> None:
    """Draw the share of requests that waited longer than x, and where mean and percentiles lie on that curve."""
    ordered = np.sort(day.ttft_s)
    longer = 1 - np.arange(1, len(ordered) + 1) / len(ordered)
    step = max(1, len(ordered) // 400)
    kept = np.unique(
        np.concatenate([np.arange(0, len(ordered) - 200, step), np.arange(len(ordered) - 200, len(ordered) - 1)])
    )
    figure, ax = new_figure("How many waited longer than that?", x="time to first token (s)", y="share of requests")
    ax.plot(ordered[kept], longer[kept], **line_style(0), label="waited longer")
    mean = float(ordered.mean())
    marks = {"mean": mean, **{f"p{p}": percentile(ordered, p) for p in (50, 95, 99)}}
    for i, (name, value) in enumerate(marks.items()):
        share = float((ordered > value).mean())
        style = line_style(i + 1, markers=True)
        ax.plot([value], [share], **{**style, "linestyle": ""}, label=f"{name} = {as_text(value)} s")
    ax.set_yscale("log")
    ax.set_yticks([1, 0.1, 0.01, 0.001], ["100 %", "10 %", "1 %", "0.1 %"])
    ax.set_xscale("log")
    ax.set_xticks([0.1, 1, 10, 30], ["0.1", "1", "10", "30"])
    ax.legend()
    beyond = float((ordered > SLOW_S).mean())
    show(
        figure,
        alt=f"The share of requests that waited longer falls from 100 % to 50 % at {as_text(marks['p50'])} s and 5 % "
        f"at {as_text(marks['p95'])} s; then the curve turns flat: {beyond:.1%} waited longer than {SLOW_S:g} s, "
        f"and 1 % longer than {as_text(marks['p99'])} s. The mean, {as_text(mean)} s, lies far left of that tail.",
        data={"mark": list(marks), "seconds": list(marks.values())},
    )


def draw_sessions(shares: Mapping[str, Mapping[int, float]]) -> None:
    """Draw the share of sessions with a slow answer over the length of a session, one curve per way to count."""
    figure, ax = new_figure(
        "A session has many chances to meet the tail", x="requests in a session", y="sessions with a slow answer"
    )
    for i, (name, points) in enumerate(shares.items()):
        ax.plot(list(points), list(points.values()), **line_style(i, markers=True), label=name)
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    ax.set_ylim(bottom=0)
    ax.legend()
    longest = max(next(iter(shares.values())))
    ends = ", ".join(f"{name} {points[longest]:.0%}" for name, points in shares.items())
    show(
        figure,
        alt=f"Curves that rise with the number of requests in a session; at {longest} requests: {ends}.",
        data={
            "requests": list(next(iter(shares.values()))),
            **{n: [f"{v:.1%}" for v in s.values()] for n, s in shares.items()},
        },
    )


def draw_samples(estimates: Mapping[int, Sequence[float]], true_s: float, p: float = 99) -> None:
    """Draw the p-th percentiles of many samples, one column of dots per sample size, and the true value."""
    figure, ax = new_figure(
        f"The p{p:g} of 40 samples of each size", x="requests in the sample", y=f"p{p:g} of the sample (s)"
    )
    for i, values in enumerate(estimates.values()):
        nudge = np.linspace(-0.25, 0.25, len(values))
        style = line_style(i, markers=True)
        ax.plot(i + nudge, values, **{**style, "linestyle": "", "markersize": 4})
    ax.axhline(true_s, **line_style(5), label=f"p{p:g} of all requests, {as_text(true_s)} s")
    ax.set_xticks(range(len(estimates)), [f"{size:,}" for size in estimates])
    _logarithmic(ax, (2, 5, 10, 20, 40))
    ax.legend(loc="lower right")
    spans = "; ".join(f"{size:,} requests: {as_text(min(v))} to {as_text(max(v))} s" for size, v in estimates.items())
    show(
        figure,
        alt=f"Dots spread widely for small samples and less for large ones around {as_text(true_s)} s. {spans}.",
        data={
            "requests": list(estimates),
            "lowest (s)": [min(v) for v in estimates.values()],
            "highest (s)": [max(v) for v in estimates.values()],
        },
    )


def _logarithmic(ax: Axes, ticks: Sequence[float]) -> None:
    ax.set_yscale("log")
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()


# --- tables and draws ----------------------------------------------------------------------------------------------


def summary(parts: Mapping[str, Floats | Sequence[float]], caption: str) -> None:
    """Show number, mean and percentiles of each part."""
    rows = [(len(values), float(np.mean(values)), *percentiles(values, (50, 95, 99))) for values in parts.values()]
    counts, means, p50s, p95s, p99s = zip(*rows, strict=True)
    columns = {
        "": list(parts),
        "requests": counts,
        "mean (s)": means,
        "p50 (s)": p50s,
        "p95 (s)": p95s,
        "p99 (s)": p99s,
    }
    table(columns, caption)


def sessions_at_random(slow: Sequence[bool], requests: int, sessions: int = 4000) -> float:
    """Return the share of sessions with a slow answer, if each request is drawn from the whole day."""
    rng = generator(6, f"sessions of {requests}")
    return sum(any(rng.choice(slow) for _ in range(requests)) for _ in range(sessions)) / sessions


def sessions_in_a_row(slow: Sequence[bool], requests: int) -> float:
    """Return the share of sessions with a slow answer, if the requests of a session came in a row."""
    starts = range(len(slow) - requests + 1)
    return sum(any(slow[start : start + requests]) for start in starts) / len(starts)


def samples(values: Floats, size: int, statistic: Callable[[Floats], float], repeats: int = 40) -> list[float]:
    """Return the statistic of `repeats` random samples of this size, drawn with replacement."""
    rng = np.random.default_rng(generator(6, f"samples of {size}").getrandbits(64))
    return [statistic(rng.choice(values, size)) for _ in range(repeats)]


def p99(values: Floats) -> float:
    """Return the p99 by nearest rank."""
    return float(percentiles_of_sorted(np.sort(values), (99,))[0])
