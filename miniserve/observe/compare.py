"""Is B better than A? Paired differences over seeds, and which of them are more than chance.

Two policies run on the same seeds: same arrivals, same lengths, same faults (common random numbers). Whatever a seed
does to both cancels out in the difference, so a few seeds show as much as hundreds of independent runs would. All
intervals in one table hold *jointly* with the stated confidence (Bonferroni): otherwise twenty rows at 95 % would lead
you to expect one wrong verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isclose
from statistics import fmean

from rich.table import Table
from rich.text import Text

from miniserve.observe.intervals import Interval, paired_interval

Figures = Mapping[str, float]  # the results of one run, by metric name


@dataclass(frozen=True, slots=True)
class Metric:
    """How a figure is shown, and which direction is better."""

    label: str
    unit: str = ""
    scale: float = 1.0  # printed = value * scale
    higher_is_better: bool = False


METRICS: dict[str, Metric] = {
    "ttft_p50_s": Metric("TTFT p50", "ms", 1000),
    "ttft_p99_s": Metric("TTFT p99", "ms", 1000),
    "tpot_p50_s": Metric("TPOT p50", "ms", 1000),
    "tpot_p99_s": Metric("TPOT p99", "ms", 1000),
    "e2e_mean_s": Metric("E2E mean", "s"),
    "e2e_p99_s": Metric("E2E p99", "s"),
    "failed_fraction": Metric("failed", "%", 100),
    "goodput_per_s": Metric("goodput", "requests/s", 1, higher_is_better=True),
    "output_tokens_per_s": Metric("throughput", "tokens/s", 1, higher_is_better=True),
    "late_fraction": Metric("late or failed", "%", 100),
    "late_requests": Metric("late or failed", "requests"),
    "exposed_fraction": Metric("answers of the new version", "%", 100),
    "bad_answers": Metric("bad answers", "shown"),
    "rolled_back": Metric("rolled back", "%", 100),
    "replica_hours": Metric("replicas paid", "hours"),
    "cost_usd": Metric("cost", "USD"),
    "cached_fraction": Metric("prompt tokens cached", "%", 100, higher_is_better=True),
}


@dataclass(frozen=True, slots=True)
class Difference:
    """One policy against the base in one metric. `interval` is for policy minus base."""

    metric: str
    policy: str
    base_mean: float
    policy_mean: float
    interval: Interval

    @property
    def significant(self) -> bool:
        return 0.0 not in self.interval

    @property
    def verdict(self) -> str:
        """Return `better`, `worse`, `same` (on every seed), or `unclear`: these seeds show no difference."""
        if self.interval.low == self.interval.high == 0.0:
            return "same"
        if not self.significant:
            return "unclear"
        return "better" if (self.interval.estimate > 0) == METRICS[self.metric].higher_is_better else "worse"


@dataclass(frozen=True, slots=True)
class Comparison:
    """All differences from the base policy."""

    base: str
    seeds: int
    confidence: float
    differences: tuple[Difference, ...]

    def table(self) -> Table:
        """Return a rich table, one row per metric and policy."""
        title = f"difference from {self.base}, paired over {self.seeds} seeds"
        caption = f"± holds for all rows jointly with {self.confidence:.0%} confidence; unclear: more seeds might tell"
        table = Table(title=title, caption=caption)
        for heading in ("metric", "policy"):
            table.add_column(heading)
        for heading in (self.base, "policy's", "difference"):
            table.add_column(heading, justify="right")
        table.add_column("verdict")
        for row in self.differences:
            table.add_row(*_cells(row))
        return table


def _cells(row: Difference) -> tuple[str | Text, ...]:
    metric, interval = METRICS[row.metric], row.interval
    colour = {"better": "green", "worse": "red"}.get(row.verdict, "dim")
    shown = [
        _number(value * metric.scale)
        for value in (row.base_mean, row.policy_mean, interval.estimate, interval.half_width)
    ]
    difference = f"{'+' if interval.estimate > 0 else ''}{shown[2]} ± {shown[3]}"
    return f"{metric.label} ({metric.unit})", row.policy, shown[0], shown[1], difference, Text(row.verdict, colour)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def compare(
    runs: Mapping[str, Sequence[Figures]], metrics: Sequence[str] = tuple(METRICS), confidence: float = 0.95
) -> Comparison:
    """Compare every policy with the first one. `runs[policy][i]` are its figures for the i-th seed.

    A metric that is missing from any run (a latency where nothing was served) is left out.
    Raises: ValueError for fewer than two policies or seeds, policies with different numbers of seeds, or an unknown
    metric.
    """
    _check(runs, metrics)
    base, *others = runs
    everywhere = [m for m in metrics if all(m in run for policy in runs.values() for run in policy)]
    # Bonferroni: each interval is stricter, so that all of them hold at once with `confidence`.
    alone = 1 - (1 - confidence) / max(1, len(everywhere) * len(others))

    def difference(metric: str, policy: str) -> Difference:
        theirs = [run[metric] for run in runs[base]]
        ours = [_same_or(run[metric], other) for run, other in zip(runs[policy], theirs, strict=True)]
        return Difference(metric, policy, fmean(theirs), fmean(ours), paired_interval(ours, theirs, alone))

    rows = tuple(difference(metric, policy) for metric in everywhere for policy in others)
    return Comparison(base, len(runs[base]), confidence, rows)


def _same_or(value: float, other: float) -> float:
    """Return `other` if the two differ only by rounding: summing times in another order is not a finding."""
    return other if isclose(value, other, rel_tol=1e-9) else value


def _check(runs: Mapping[str, Sequence[Figures]], metrics: Sequence[str]) -> None:
    counts = {policy: len(seeds) for policy, seeds in runs.items()}
    if len(runs) < 2 or min(counts.values()) < 2 or len(set(counts.values())) > 1:
        raise ValueError(f"a comparison needs 2 or more policies on the same 2 or more seeds, not {counts}")
    unknown = [metric for metric in metrics if metric not in METRICS]
    if unknown:
        raise ValueError(f"unknown metrics {unknown}; known: {', '.join(METRICS)}")
