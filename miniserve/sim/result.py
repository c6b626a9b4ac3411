"""The result of a simulated run: outcomes, quantities over time, and its origin; as a table and as figures.

`series` maps a name to a step function (times, values): each value holds from its time until the next. Known names
(`PANELS`) share panels; `kv_used_fraction/r3` is the line "r3" in the panel of `kv_used_fraction`; any other name gets
its own panel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.table import Table

from miniserve.observe import plots
from miniserve.observe.cost import Ledger
from miniserve.observe.goodput import SLO, attainment, goodput_per_s, over_time
from miniserve.observe.outcomes import Latency, Outcomes, Summary

Numbers = Sequence[float] | npt.NDArray[np.float64]
Series = tuple[Numbers, Numbers]  # times, values

PANELS: dict[str, tuple[str, str]] = {  # series name: (y axis of its panel, label of its line)
    "waiting": ("requests in the replicas", "waiting"),
    "running": ("requests in the replicas", "running"),
    "outstanding": ("requests in the replicas", "outstanding"),
    "queued": ("requests at the gateway", "waiting"),
    "kv_used_fraction": ("KV blocks in use", "fleet"),
    "replicas": ("replicas", "ready"),
    "replicas_starting": ("replicas", "starting"),
    "replicas_draining": ("replicas", "draining"),
    "replicas_wanted": ("replicas", "wanted"),
}
_WINDOWS = 60  # points of a rate over time


@dataclass(frozen=True, slots=True)
class RolloutEvent:
    """Something that a rollout did."""

    at_s: float
    text: str


@dataclass(frozen=True, slots=True)
class SimResult:
    """One run. `meta` is what you need to repeat it: scenario, seed, policies."""

    outcomes: Outcomes
    series: Mapping[str, Series] = field(default_factory=dict)
    meta: Mapping[str, object] = field(default_factory=dict)
    slo: SLO = field(default_factory=SLO)
    stopped: str | None = None  # why the run ended early; the outcomes are those so far
    totals: Mapping[str, float] = field(default_factory=dict)  # more figures: what an autoscaler paid and missed
    ledger: Ledger | None = None  # who caused the bill, if requested
    itl: Latency | None = None  # between tokens; a simulation records no token's time, only those of requests
    unanswered: int = 0  # requests of a whole run that never got an answer; they are outcomes like all others
    rollout: Sequence[RolloutEvent] = ()  # what a rollout did, in order
    caches: Mapping[str, float] = field(default_factory=dict)  # what the replicas' prefix caches did, in blocks

    @property
    def is_whole(self) -> bool:
        """Return whether every request came and is counted, so that the figures can be compared."""
        return self.stopped is None or self.unanswered > 0

    def summary(self) -> Summary:
        return self.outcomes.summary()

    def figures(self) -> dict[str, float]:
        """Return every figure by name: the few dozen numbers that `observe.compare` takes instead of all outcomes."""
        summary = self.summary()
        flat = {name: value for name, value in summary.figures().items() if isinstance(value, int | float)}
        if self.itl is not None:
            flat |= {f"itl_{name}": value for name, value in asdict(self.itl).items()}
        flat["failed_fraction"] = 1 - summary.served / summary.requests if summary.requests else 0.0
        flat["goodput_per_s"] = goodput_per_s(self.outcomes, self.slo)
        flat["slo_attainment"] = attainment(self.outcomes, self.slo)
        return {**flat, **self.caches, **self.totals}

    def table(self) -> Table:
        """Return the summary as a rich table of latencies, with everything else in its caption."""
        summary = self.summary()
        table = Table(title=self._title(), caption=self._caption(summary), caption_justify="left")
        table.add_column("latency (ms)")
        for part in fields(Latency):
            heading = part.name.removesuffix("_s").replace("_", ".")
            table.add_column(heading, justify="right")
        for label, latency in self._latencies(summary):
            table.add_row(label, *_milliseconds(latency))
        return table

    def _latencies(self, summary: Summary) -> list[tuple[str, Latency | None]]:
        rows = [("TTFT", summary.ttft), ("TPOT", summary.tpot), ("E2E", summary.e2e)]
        return rows if self.itl is None else [rows[0], ("ITL", self.itl), *rows[1:]]

    def plot(self, path: Path) -> Path:
        """Write one figure with all panels; the suffix chooses the format (.png, .svg, .pdf)."""
        panels = self._panels()
        figure, axes = plots.grid(2 + len(panels), self._title())
        served = self.outcomes.where(self.outcomes.served)
        plots.latency_cdf(axes[0], {"TTFT": served.ttft_s, "TPOT": served.tpot_s, "E2E": served.e2e_s})
        window_s = max(self.outcomes.duration_s / _WINDOWS, 1e-9)
        plots.rates(axes[1], over_time(self.outcomes, self.slo, window_s), str(self.slo))
        for ax, (ylabel, lines) in zip(axes[2:], panels.items(), strict=True):
            plots.lines(ax, lines, ylabel, percent=ylabel == "KV blocks in use")
        return plots.save_figure(figure, path)

    def _panels(self) -> dict[str, dict[str, plots.Line]]:
        """Group the series: label of the panel's y axis -> label of the line -> (times, values)."""
        panels: dict[str, dict[str, plots.Line]] = {}
        for name, (times, values) in self.series.items():
            family, _, member = name.partition("/")
            ylabel, label = PANELS.get(family, (family, family))
            panels.setdefault(ylabel, {})[member or label] = self._to_the_end(times, values)
        return panels

    def _to_the_end(self, times: Numbers, values: Numbers) -> plots.Line:
        """Extend the last value until the last request has ended, so that all panels span the same time."""
        t, v = np.asarray(times, float), np.asarray(values, float)
        end = float(self.outcomes.ended_s.max(initial=0.0))
        return (np.append(t, end), np.append(v, v[-1])) if len(t) and t[-1] < end else (t, v)

    def _title(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.meta.items()) or "simulated run"

    def _caption(self, summary: Summary) -> str:
        statuses = ", ".join(f"{status}: {count:,}" for status, count in summary.by_status.items())
        lines = [
            f"{summary.requests:,} requests in {summary.duration_s:,.1f} s ({statuses or 'none'})",
            f"{summary.served_per_s:.4g} served/s, {summary.output_tokens_per_s:.4g} tokens/s, "
            f"{summary.attempts_per_request:.3f} attempts per request, {summary.cached_fraction:.1%} of prompts cached",
            f"goodput {goodput_per_s(self.outcomes, self.slo):.4g}/s = {attainment(self.outcomes, self.slo):.1%} of "
            f"requests ({self.slo})",
        ]
        if self.totals:
            lines.append(", ".join(f"{name.replace('_', ' ')} {value:,.4g}" for name, value in self.totals.items()))
        if self.stopped:
            lines.insert(0, f"stopped early: {self.stopped}")
        return "\n".join(lines)


def _milliseconds(latency: Latency | None) -> Sequence[str]:
    if latency is None:
        return ["-"] * len(fields(Latency))
    return [f"{ms:,.1f}" if ms < 1000 else f"{ms:,.0f}" for ms in (value * 1000 for value in astuple(latency))]
