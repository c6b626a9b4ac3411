"""Several policies on the same demand: run each on the same seeds, and report what differs by more than chance.

A `case` is a named scenario: another balancer, another retry policy, another fleet. Seed by seed, all cases see the
same arrivals, lengths and faults (common random numbers), so any difference is due to the policies. If the scenario has
faults, the shares of well-served requests before, during and after them show which policies recover.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
from rich.table import Table

from miniserve.observe import plots
from miniserve.observe.compare import METRICS, Comparison, Figures, compare
from miniserve.observe.goodput import attainment, over_time
from miniserve.observe.intervals import mean_interval
from miniserve.policies.decision_log import OnDecision
from miniserve.scenario.model import Scenario
from miniserve.sim.meter import Meter
from miniserve.sim.result import SimResult
from miniserve.sim.run import INTERRUPTED, simulate

OnCaseProgress = Callable[[str, int, int, float], None]  # case, seed, requests answered, simulated seconds
DURING = "during the fault"
_WINDOWS = 80  # points of a rate over time


@dataclass(frozen=True, slots=True)
class FaultPhase:
    """A stretch of time; a request belongs to the one in which it arrives."""

    name: str
    start_s: float
    end_s: float


def phases(scenario: Scenario) -> tuple[FaultPhase, ...]:
    """Return the phases before, during and after the scenario's faults; none if no replica has a fault."""
    events = scenario.faults.events
    if not events:
        return ()
    start_s, end_s = min(event.at_s for event in events), max(event.at_s + event.duration_s for event in events)
    again_s = end_s + (end_s - start_s)
    stretches = (
        ("before", 0.0, start_s),
        (DURING, start_s, end_s),
        ("just after it", end_s, again_s),
        ("later", again_s, math.inf),
    )
    return tuple(FaultPhase(*stretch) for stretch in stretches if stretch[1] < stretch[2])


@dataclass(slots=True)
class PolicyComparison:
    """All runs so far. For each case only the first run is kept whole; for the others, only the figures."""

    cases: Mapping[str, Scenario]
    seeds: Sequence[int]
    first: dict[str, SimResult] = field(default_factory=dict)
    figures: dict[str, list[Figures]] = field(default_factory=dict)
    shares: dict[str, list[dict[str, float]]] = field(
        default_factory=dict
    )  # case -> per seed: phase -> share served well
    stopped: str | None = None
    interrupted: bool = False
    on_decision: OnDecision | None = None  # told of every policy's decisions, in all runs alike
    with_ledger: bool = False  # show who caused the bill of each case's first run
    should_stop: bool = False  # set it, for example from a signal handler, to end the run at its next event

    def run(self, on_progress: OnCaseProgress | None = None) -> PolicyComparison:
        """Run every case on every seed, seed by seed; stop at the first run that breaks off, keeping what is done."""
        for seed in self.seeds:
            for name, scenario in self.cases.items():
                tell = None if on_progress is None else _telling(on_progress, name, seed)
                meter = Meter() if self.with_ledger and name not in self.first else None
                result = simulate(
                    scenario,
                    seed,
                    meter=meter,
                    on_progress=tell,
                    on_decision=self.on_decision,
                    should_stop=lambda: self.should_stop,
                )
                self._add(name, scenario, result)
                if result.stopped is not None:
                    where = f"{name}, seed {seed}: " if len(self.cases) > 1 else ""
                    self.stopped = "; ".join(filter(None, (self.stopped, where + result.stopped)))
                    self.interrupted = result.stopped.startswith(INTERRUPTED)
                if not result.is_whole:
                    return self
        return self

    def _add(self, name: str, scenario: Scenario, result: SimResult) -> None:
        self.first.setdefault(name, result)
        if result.is_whole:
            self.figures.setdefault(name, []).append(result.figures())
            self.shares.setdefault(name, []).append(
                {
                    phase.name: attainment(result.outcomes.arrived_between(phase.start_s, phase.end_s), result.slo)
                    for phase in phases(scenario)
                }
            )

    @property
    def has_outcomes(self) -> bool:
        """Whether any request was answered."""
        return any(len(result.outcomes) for result in self.first.values())

    @property
    def complete_seeds(self) -> int:
        """How many seeds every case has been run on."""
        return min((len(self.figures.get(name, ())) for name in self.cases), default=0)

    def comparison(self) -> Comparison | None:
        """Return the paired differences from the first case; None with fewer than two cases or seeds."""
        seeds = self.complete_seeds
        if len(self.cases) < 2 or seeds < 2:
            return None
        runs = {name: self.figures[name][:seeds] for name in self.cases}
        told = [metric for metric in METRICS if any(run.get(metric) for run in chain.from_iterable(runs.values()))]
        return compare(runs, told)

    def table(self) -> Table:
        """Return the figures of all cases side by side: means over the seeds, with 95 % intervals from two seeds on."""
        seeds = self.complete_seeds
        table = Table(title=f"mean of {seeds} seeds" + (" and 95 % interval" if seeds > 1 else ""))
        table.add_column("metric")
        for name in self.cases:
            table.add_column(name, justify="right")
        for key, metric in METRICS.items():
            rows = [[run[key] for run in self.figures.get(name, [])[:seeds] if key in run] for name in self.cases]
            if seeds and all(len(values) == seeds for values in rows):
                table.add_row(f"{metric.label} ({metric.unit})", *(_mean(values, metric.scale) for values in rows))
        return table

    def phase_table(self) -> Table | None:
        """Return the shares of well-served requests by phase; None if the first case has no timed faults."""
        names = [phase.name for phase in phases(next(iter(self.cases.values())))]
        if not names or not self.complete_seeds:
            return None
        slo = next(iter(self.first.values())).slo
        table = Table(title=f"share of requests served well ({slo}), by arrival")
        table.add_column("")
        for name in names:
            table.add_column(name, justify="right")
        for name in self.cases:
            per_seed = self.shares[name][: self.complete_seeds]
            table.add_row(name, *(_share([shares[phase] for shares in per_seed]) for phase in names))
        return table

    def plot(self, path: Path) -> Path:
        """Write a figure: a single case in full, or all cases overlaid (on the first seed)."""
        if len(self.cases) == 1:
            return next(iter(self.first.values())).plot(path)
        sizes = {name: line for name, result in self.first.items() if (line := _size(result)) is not None}
        figure, axes = plots.grid(5 if sizes else 4, f"seed {self.seeds[0]}")
        goodput, waiting = {}, {}
        for name, result in self.first.items():
            times, counts = result.series["outstanding"]
            window_s = max(result.outcomes.duration_s / _WINDOWS, 1e-9)
            rates = over_time(result.outcomes, result.slo, window_s, start_s=0.0)
            goodput[name] = (rates.times_s, rates.good_per_s)
            waiting[name] = (np.asarray(times, float), np.asarray(counts, float))
        plots.lines(axes[0], goodput, "goodput (requests/s)")
        plots.lines(axes[1], waiting, "requests in the fleet")
        served = {name: result.outcomes.where(result.outcomes.served) for name, result in self.first.items()}
        plots.latency_cdf(axes[2], {f"{name}, TTFT": outcomes.ttft_s for name, outcomes in served.items()})
        plots.latency_cdf(axes[3], {f"{name}, E2E": outcomes.e2e_s for name, outcomes in served.items()})
        if sizes:
            plots.lines(axes[4], sizes, "replicas, ready or starting")
        for ax in axes[:2]:
            if (legend := ax.get_legend()) is not None:
                legend.set_ncols(2)
            for phase in phases(next(iter(self.cases.values()))):
                if phase.name == DURING and not math.isinf(phase.end_s):
                    ax.axvspan(phase.start_s, phase.end_s, color="#dddddd", zorder=0)
        return plots.save_figure(figure, path)


def _size(result: SimResult) -> plots.Line | None:
    """Return how many replicas an autoscaled run had over time; None if there was no autoscaler."""
    if "replicas_wanted" not in result.series:
        return None
    (times, ready), (_, starting) = result.series["replicas"], result.series["replicas_starting"]
    return np.asarray(times, float), np.asarray(ready, float) + np.asarray(starting, float)


def _telling(on_progress: OnCaseProgress, name: str, seed: int) -> Callable[[int, float], None]:
    return lambda answered, now_s: on_progress(name, seed, answered, now_s)


def _mean(values: Sequence[float], scale: float) -> str:
    mean = sum(values) / len(values) * scale
    if len(values) < 2:
        return f"{mean:.4g}"
    return f"{mean:.4g} ± {mean_interval(values).half_width * scale:.2g}"


def _share(values: Sequence[float]) -> str:
    known = [value for value in values if not math.isnan(value)]
    return f"{sum(known) / len(known):.1%}" if known else "-"
