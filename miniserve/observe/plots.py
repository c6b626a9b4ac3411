"""Figures of a run: each function draws one panel on an `Axes`, `save_figure` writes the file.

Uses only matplotlib's object interface and its Agg canvas: no window and no global figure, so a notebook, a test and a
server thread can draw at the same time. The colours are Okabe and Ito's, which colour-blind readers can tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, NullFormatter, PercentFormatter

from miniserve.observe.compare import METRICS, Comparison
from miniserve.observe.goodput import Rates
from miniserve.observe.outcomes import Floats
from miniserve.observe.percentiles import percentiles_of_sorted

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#888888"
_POINTS = 1500  # more than a figure is wide in pixels

Line = tuple[Floats, Floats]  # times, values


def grid(panels: int, title: str) -> tuple[Figure, list[Axes]]:
    """Return a figure with `panels` panels in two columns; an odd last one spans both."""
    rows = max(1, (panels + 1) // 2)
    figure = Figure(figsize=(11, 0.6 + 2.9 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    spec = figure.add_gridspec(rows, 2)
    axes = []
    for i in range(panels):
        alone = i == panels - 1 and panels % 2 == 1
        axes.append(figure.add_subplot(spec[i // 2, :] if alone else spec[i // 2, i % 2]))
    for ax in axes:
        ax.grid(color="#dddddd", linewidth=0.6)
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save_figure(figure: Figure, path: Path) -> Path:
    """Write the figure; the suffix chooses the format (.png, .svg, .pdf)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


def latency_cdf(ax: Axes, latencies: Mapping[str, Floats]) -> None:
    """Draw the share of requests within each latency, with p50 and p99 of each curve in the legend."""
    for colour, (name, values) in zip(_cycle(len(latencies)), latencies.items(), strict=True):
        ordered = np.sort(values[~np.isnan(values)])
        if not len(ordered):
            continue
        p50, p99 = percentiles_of_sorted(ordered, (50, 99))
        ranks = np.unique(np.linspace(0, len(ordered) - 1, _POINTS).astype(int))
        label = f"{name}: p50 {_seconds(p50)}, p99 {_seconds(p99)}"
        ax.step(ordered[ranks], (ranks + 1) / len(ordered), where="post", color=colour, label=label)
    ax.axhline(0.99, color=GREY, linewidth=0.8, linestyle=":")
    ax.set(xscale="log", ylim=(0, 1.02), xlabel="latency", ylabel="share of served requests")
    ax.xaxis.set_major_formatter(EngFormatter(unit="s"))
    ax.xaxis.set_minor_formatter(NullFormatter())  # its labels would overlap within one decade
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    _legend(ax, columns=1)


def rates(ax: Axes, over_time: Rates, slo: str) -> None:
    """Draw the offered load, what was served, and what was served well."""
    ax.plot(over_time.times_s, over_time.offered_per_s, color=GREY, label="offered")
    ax.plot(over_time.times_s, over_time.served_per_s, color=COLOURS[0], label="served")
    ax.plot(over_time.times_s, over_time.good_per_s, color=COLOURS[2], label=f"good ({slo})")
    ax.set(xlabel="time (s)", ylabel="requests/s", ylim=(0, None))
    _legend(ax)


def lines(ax: Axes, series: Mapping[str, Line], ylabel: str, *, percent: bool = False) -> None:
    """Draw quantities that stay constant until their next change."""
    for colour, (name, (times, values)) in zip(_cycle(len(series)), series.items(), strict=True):
        ax.step(*_thinned(times, values), where="post", color=colour, label=name, linewidth=1.0)
    ax.set(xlabel="time (s)", ylabel=ylabel)
    ax.set_ylim(0, 1.08 * max((float(np.max(values)) for _, values in series.values() if len(values)), default=1) or 1)
    if percent:
        ax.set_ylim(0, 1.02)
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    _legend(ax)


def differences(comparison: Comparison) -> Figure:
    """Return a figure of all paired differences with their intervals, as percentages of the base policy's mean."""
    rows = [row for row in comparison.differences if row.base_mean != 0][::-1]
    figure = Figure(figsize=(9, 1.4 + 0.32 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.add_subplot()
    colours = {"better": COLOURS[2], "worse": COLOURS[1]}
    for y, row in enumerate(rows):
        bounds = (row.interval.low, row.interval.estimate, row.interval.high)
        low, middle, high = (100 * value / row.base_mean for value in bounds)
        colour, error = colours.get(row.verdict, GREY), [[middle - low], [high - middle]]
        ax.errorbar(middle, y, xerr=error, fmt="o" if row.significant else ".", capsize=3, color=colour)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_yticks(range(len(rows)), [f"{METRICS[row.metric].label}, {row.policy}" for row in rows])
    ax.set(
        xlabel=f"difference from {comparison.base} (% of its mean), {comparison.seeds} seeds, paired",
        title="green: better, orange: worse, grey: unclear",
    )
    ax.grid(axis="x", color="#dddddd", linewidth=0.6)
    return figure


def _cycle(n: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(n)]


def _legend(ax: Axes, columns: int = 4) -> None:
    """Put the legend above the panel, where it hides nothing."""
    if ax.get_legend_handles_labels()[1]:
        ax.legend(frameon=False, fontsize="small", loc="lower left", bbox_to_anchor=(0, 1), ncols=columns)


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 1 else f"{value * 1000:.3g} ms"


def _thinned(times: Sequence[float] | Floats, values: Sequence[float] | Floats) -> Line:
    """Return at most `_POINTS` points. Among neighbours the largest is kept: peaks are what hurts."""
    t, v = np.asarray(times, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if len(t) <= _POINTS:
        return t, v
    starts = np.unique(np.linspace(0, len(t), _POINTS, endpoint=False).astype(int))
    return t[starts], np.maximum.reduceat(v, starts)
