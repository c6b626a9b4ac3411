"""Chapter 14's experiments: Larkspur's day over time, and how far off cheaper percentiles are.

The day is chapter 6's. This module only draws and prints: the ideas are in the notebook's cells. Contains no answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from miniserve.course.chapters.ch06_percentiles.lab import SLOW_S, Day, larkspur_day, summary
from miniserve.course.figures import line_style, new_figure, show
from miniserve.course.tables import as_text
from miniserve.observe.outcomes import Floats
from miniserve.observe.percentiles import percentile

__all__ = ["SLOW_S", "Day", "draw_cdf", "draw_errors", "draw_timeline", "exact", "larkspur_day", "summary", "windows"]


def exact(values: Sequence[float] | Floats, p: float) -> float:
    """Return the percentile by sorting all values."""
    return float(percentile(np.asarray(values).tolist(), p))


def windows(day: Day, minutes: float) -> dict[float, list[float]]:
    """Return the times to first token of each non-empty window, by the hour at which it starts."""
    starts = np.arange(0, 24, minutes / 60)
    found = {float(start): day.between(start, start + minutes / 60).tolist() for start in starts}
    return {start: values for start, values in found.items() if values}


def draw_cdf(values: Sequence[float], marks: Mapping[str, float]) -> None:
    """Draw the cumulative distribution of the waits, and mark where some figures lie on it."""
    ordered = np.sort(values)
    kept = np.unique(np.linspace(0, len(ordered) - 1, 300).astype(int))
    figure, ax = new_figure(
        "How many had their first token by then?", x="time to first token (s)", y="share of requests"
    )
    ax.step(ordered[kept], (kept + 1) / len(ordered), where="post", **line_style(0), label="all requests of the day")
    shares = {name: float((ordered <= value).mean()) for name, value in marks.items()}
    for i, (name, value) in enumerate(marks.items()):
        style = {**line_style(i + 1, markers=True), "linestyle": ""}
        ax.plot([value], [shares[name]], **style, label=f"{name}: {as_text(value)} s")
    ax.set_xscale("log")
    ax.set_xticks([0.1, 1, 10, 30], ["0.1", "1", "10", "30"])
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    ax.legend(loc="lower right", frameon=False)
    words = "; ".join(f"{name} {as_text(value)} s, where {shares[name]:.1%} are done" for name, value in marks.items())
    show(
        figure,
        alt=f"The share of requests that have their first token rises steeply and then crawls to 100 %. {words}.",
        data={"figure": list(marks), "seconds": list(marks.values()), "done by then": list(shares.values())},
    )


def draw_timeline(hours: Sequence[float], curves: Mapping[str, Sequence[float]], title: str) -> None:
    """Draw each window's figures over the day."""
    figure, ax = new_figure(title, x="hour of the day", y="time to first token (s)")
    for i, (name, values) in enumerate(curves.items()):
        ax.plot(hours, values, **line_style(i), label=name)
    ax.axhline(SLOW_S, color="#000000", linewidth=0.8)
    ax.set_yscale("log")
    ax.set_yticks([0.5, 1, 2, 4, 10, 30], ["0.5", "1", "2", "4", "10", "30"])
    ax.minorticks_off()
    ax.set_xticks(range(0, 25, 3))
    ax.legend(frameon=False, loc="upper left")
    words = "; ".join(
        f"{name}: usually {as_text(float(np.median(values)), 2)} s, at most {as_text(max(values), 2)} s near "
        f"{hours[int(np.argmax(values))]:.1f} h"
        for name, values in curves.items()
    )
    show(figure, alt=f"Curves over 24 hours; the line is the promise of {SLOW_S:g} s. {words}.")


def draw_errors(
    ps: Sequence[float], answers: Mapping[str, Callable[[float], float]], values: Sequence[float], alpha: float
) -> None:
    """Draw the relative error of each way's percentiles."""
    rights = [exact(values, p) for p in ps]
    errors = {
        name: [abs(answer(p) / right - 1) for p, right in zip(ps, rights, strict=True)]
        for name, answer in answers.items()
    }
    figure, ax = new_figure("How far off?", x="percentile", y="error, share of the exact value")
    places = range(len(ps))
    for i, (name, row) in enumerate(errors.items()):
        ax.plot(places, [max(error, 1e-4) for error in row], **line_style(i, markers=True), label=name)
    ax.axhline(alpha, color="#000000", linewidth=0.8)
    ax.set_xticks(places, [f"p{p:g}" for p in ps])
    ax.set_yscale("log")
    ax.set_yticks([0.0001, 0.001, 0.01, 0.1, 1], ["0.01 %", "0.1 %", "1 %", "10 %", "100 %"])
    ax.legend(frameon=False)
    words = "; ".join(f"{name}: up to {max(row):.1%}" for name, row in errors.items())
    show(
        figure,
        alt=f"Relative errors of percentiles; the line is the bound of {alpha:.0%}. {words}.",
        data={
            "percentile": [f"p{p:g}" for p in ps],
            "exact (s)": rights,
            **{name: [f"{error:.1%}" for error in row] for name, row in errors.items()},
        },
    )
