"""Objectives over many requests: how much may fail, how fast that allowance is used up, and what is owed then.

    SLI   what is measured: a stream of good and bad events                 `failures`, `slowness`, `downtime`
    SLO   the goal for it: "99.9 % good over 30 days"                       `Objective`
    SLA   the promise to a customer: looser, with money behind it           `agreement.Agreement`

`goodput.SLO` is something else with the same name: the limits that *one* request must keep. Here it only decides which
events are slow. (`hardware.rightsizing.SpeedTarget` is a third thing: mean latencies that a fleet is sized for.)

**Error budget.** An objective of 99.9 % allows one bad event in a thousand. The *burn rate* is the share of bad events
divided by that allowance: at 1 the budget lasts exactly the period, at 14.4 it is gone in two days.

**Two windows.** A page must come quickly (a short window) but not for a mere blip (a long one), so it fires only while
both burn faster than its rate. The short one also ends it soon after recovery, long before the long window has
forgotten.

Pure: it is fed events and their times, and has no clock. A window is counted in 720 cells, so its edge is that coarse.
Source: The Site Reliability Workbook (2018), chapter 5, table 5-8.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from miniserve.errors import SetupError
from miniserve.observe.goodput import SLO, kept
from miniserve.observe.outcomes import Floats, Mask, Outcomes

MINUTE_S, HOUR_S, DAY_S = 60.0, 3600.0, 86_400.0
_CELLS = 720  # per window: 5 s of an hour
_ROUNDING = 1e-9  # 10 * (1 - 0.9) is a little less than 1

# --- what is measured ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """What an indicator saw, in time order."""

    times_s: Floats
    bad: Mask


def failures(outcomes: Outcomes) -> Events:
    """Return one event per request, bad if it failed through our fault.

    A 4xx status is the client's doing (a bad request, over quota, gone away) and not an event at all.
    """
    ours = (outcomes.status < 400) | (outcomes.status >= 500)
    return _in_order(outcomes.ended_s[ours], outcomes.status[ours] >= 500)


def slowness(outcomes: Outcomes, limits: SLO) -> Events:
    """Return one event per served request, bad if it broke one of `limits`."""
    served = outcomes.where(outcomes.served)
    return _in_order(served.ended_s, ~kept(served, limits))


def downtime(outcomes: Outcomes, *, minute_s: float = MINUTE_S, down_fraction: float = 0.05) -> Events:
    """Return one event per minute in which requests ended, bad if at least `down_fraction` of them failed.

    This is availability as contracts count it: by time. A minute without requests is not an event: its state is
    unknown.
    """
    seen = failures(outcomes)
    minutes, places = np.unique(seen.times_s // minute_s, return_inverse=True)
    failed = np.bincount(places, weights=seen.bad, minlength=len(minutes))
    every = np.bincount(places, minlength=len(minutes))
    return Events(np.asarray((minutes + 1) * minute_s, np.float64), failed >= down_fraction * every)


def _in_order(times_s: Floats, bad: Mask) -> Events:
    order = np.argsort(times_s, kind="stable")
    return Events(times_s[order], bad[order])


# --- the goal, and its alerts --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Objective:
    """At least the share `target` of events must be good over `period_s`."""

    target: float
    period_s: float = 30 * DAY_S
    name: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.target < 1:
            raise SetupError(f"target ({self.target}) must lie between 0 and 1: at 1 the first bad event breaks it")
        if not self.period_s > 0:
            raise SetupError(f"period_s ({self.period_s}) must be positive")

    @property
    def allowed_fraction(self) -> float:
        """Share of events that may be bad."""
        return 1 - self.target


@dataclass(frozen=True, slots=True)
class BurnAlert:
    """Fires while the budget burns more than `burn` times too fast in both windows."""

    severity: str
    long_s: float
    short_s: float
    burn: float

    def __post_init__(self) -> None:
        if not 0 < self.short_s < self.long_s or not self.burn > 0:
            raise SetupError(
                f"an alert needs 0 < short_s < long_s and burn > 0, not short_s {self.short_s:g}, long_s "
                f"{self.long_s:g}, burn {self.burn:g}"
            )

    def threshold(self, objective: Objective) -> float:
        """Return the share of bad events that both windows must exceed."""
        return self.burn * objective.allowed_fraction

    def budget_fraction(self, objective: Objective) -> float:
        """Return the share of the period's budget that is used up when the long window burns at this rate."""
        return self.burn * self.long_s / objective.period_s

    def detection_s(self, objective: Objective, error_ratio: float = 1.0) -> float:
        """Return how soon the alert fires if, after a healthy time, `error_ratio` of all events are bad from now on."""
        threshold = self.threshold(objective)
        return threshold / error_ratio * self.long_s if error_ratio > threshold else math.inf

    def reset_s(self, objective: Objective, error_ratio: float = 1.0) -> float:
        """Return how long it keeps firing once everything is good again; at most the short window."""
        return max(0.0, (1 - self.threshold(objective) / error_ratio) * self.short_s)


WORKBOOK = (
    BurnAlert("page", 1 * HOUR_S, 5 * MINUTE_S, 14.4),
    BurnAlert("page", 6 * HOUR_S, 30 * MINUTE_S, 6.0),
    BurnAlert("ticket", 3 * DAY_S, 6 * HOUR_S, 1.0),
)


def scaled_alerts(period_s: float, alerts: Sequence[BurnAlert] = WORKBOOK) -> tuple[BurnAlert, ...]:
    """Return `alerts`, made for 30 days, with windows in proportion to another period: a demo has no month."""
    factor = period_s / (30 * DAY_S)
    return tuple(BurnAlert(each.severity, each.long_s * factor, each.short_s * factor, each.burn) for each in alerts)


def alert_table(objective: Objective, alerts: Sequence[BurnAlert] = WORKBOOK) -> Table:
    """Return what each alert means for `objective`, with its times for a total outage."""
    table = Table(title=f"burn-rate alerts for {objective.target:.4%} over {objective.period_s / DAY_S:g} days")
    for heading in (
        "severity",
        "long",
        "short",
        "burn",
        "budget spent",
        "bad above",
        "outage seen after",
        "ends within",
    ):
        table.add_column(heading, justify="left" if heading == "severity" else "right")
    for alert in alerts:
        table.add_row(
            alert.severity,
            *(f"{seconds / HOUR_S:.3g} h" for seconds in (alert.long_s, alert.short_s)),
            f"{alert.burn:g}",
            f"{alert.budget_fraction(objective):.1%}",
            f"{alert.threshold(objective):.2%}",
            f"{alert.detection_s(objective) / MINUTE_S:.2f} min",
            f"{alert.reset_s(objective) / MINUTE_S:.1f} min",
        )
    return table


class _Window:
    """Counts of the last `length_s` seconds, give or take a cell of 1/720 of that."""

    __slots__ = ("_cell_s", "_cells", "_length_s", "bad", "events")

    def __init__(self, length_s: float) -> None:
        self._length_s = length_s
        self._cell_s = length_s / _CELLS
        self._cells: deque[list[float]] = deque()  # [end, events, bad]
        self.events = self.bad = 0.0

    def add(self, now_s: float, events: float, bad: float) -> None:
        cells = self._cells
        if not cells or now_s >= cells[-1][0]:
            cells.append([(now_s // self._cell_s + 1) * self._cell_s, 0, 0])
        cells[-1][1] += events
        cells[-1][2] += bad
        self.events += events
        self.bad += bad

    def forget(self, now_s: float) -> None:
        while self._cells and self._cells[0][0] <= now_s - self._length_s:
            _, events, bad = self._cells.popleft()
            self.events -= events
            self.bad -= bad

    def ages(self, now_s: float) -> list[list[float]]:
        return [[round(now_s - end_s, 3), events, bad] for end_s, events, bad in self._cells]

    def take_up(self, ages: Sequence[Sequence[float]], now_s: float) -> None:
        cells = [[now_s - float(age_s), float(events), float(bad)] for age_s, events, bad in ages]
        if any(not 0 <= bad <= events for _, events, bad in cells) or cells != sorted(cells):
            raise ValueError("the cells of a window are not in order")
        self._cells = deque(cells)
        self.events, self.bad = sum(cell[1] for cell in cells), sum(cell[2] for cell in cells)

    @property
    def bad_fraction(self) -> float:
        return self.bad / self.events if self.events else 0.0


@dataclass(frozen=True, slots=True)
class AlertChange:
    """An alert started (`firing`) or ended."""

    at_s: float
    alert: BurnAlert
    firing: bool


class BudgetMonitor:
    """Watches one objective: feed it with `add`, in time order; query it with `check`.

    An alert needs `min_events` in its long window: with ten requests in an hour, one failure is ten per cent and says
    next to nothing. No events means no bad events: an outage that keeps requests from arriving is not seen here.

    Raises: SetupError for an alert that could never fire, because even a total outage does not burn that fast.
    """

    def __init__(self, objective: Objective, alerts: Sequence[BurnAlert] = WORKBOOK, *, min_events: int = 100) -> None:
        for alert in alerts:
            if alert.threshold(objective) >= 1 - _ROUNDING:
                raise SetupError(
                    f"a burn rate of {alert.burn:g} can never be reached at a target of {objective.target:g}: a total "
                    f"outage burns {1 / objective.allowed_fraction:.3g} times the budget; choose a lower burn"
                )
        self.objective = objective
        self.alerts = tuple(alerts)
        self.log: list[AlertChange] = []
        self._min_events = min_events
        self._firing: set[BurnAlert] = set()
        self._now_s = -math.inf
        lengths = {objective.period_s, *(s for alert in alerts for s in (alert.long_s, alert.short_s))}
        self._windows = {length_s: _Window(length_s) for length_s in sorted(lengths)}

    def add(self, now_s: float, events: int = 1, bad: int = 0) -> None:
        """Count `events` at `now_s`, of which `bad` were bad.

        Raises: ValueError if time goes backwards, or if `bad` exceeds `events`.
        """
        self._go_to(now_s)
        if not 0 <= bad <= events:
            raise ValueError(f"bad ({bad}) must lie between 0 and the number of events ({events})")
        for window in self._windows.values():
            window.add(now_s, events, bad)

    def check(self, now_s: float) -> tuple[BurnAlert, ...]:
        """Return the alerts that fire at `now_s`; changes are added to `log`."""
        self._go_to(now_s)
        for alert in self.alerts:
            fires = self._fires(alert)
            if fires != (alert in self._firing):
                (self._firing.add if fires else self._firing.remove)(alert)
                self.log.append(AlertChange(now_s, alert, fires))
        return tuple(alert for alert in self.alerts if alert in self._firing)

    def burn(self, window_s: float) -> float:
        """Return how many times too fast the budget burns in a window. Raises: KeyError for an unknown window."""
        return self._windows[window_s].bad_fraction / self.objective.allowed_fraction

    def budget_left(self) -> float:
        """Return the share of the period's error budget that is left; negative if overdrawn.

        The budget is based on the events so far, since it is unknown how many will come.
        """
        return 1 - self.burn(self.objective.period_s)

    def state(self) -> dict[str, Any]:
        """Return everything in JSON's types; times are ages, since another process has another clock."""
        now_s = self._now_s
        windows = {f"{length_s:g}": window.ages(now_s) for length_s, window in self._windows.items()}
        return {"windows": windows, "firing": [self.alerts.index(alert) for alert in self._firing]}

    def restore(self, state: Mapping[str, Any], now_s: float) -> None:
        """Take up a `state` of the same objective and alerts, as of `now_s`.

        Raises: ValueError, TypeError or LookupError for a state that is none.
        """
        for length_s, window in self._windows.items():
            window.take_up(state["windows"][f"{length_s:g}"], now_s)
        self._firing = {self.alerts[int(index)] for index in state["firing"]}
        self._now_s = now_s

    def _fires(self, alert: BurnAlert) -> bool:
        long, short = self._windows[alert.long_s], self._windows[alert.short_s]
        threshold = alert.threshold(self.objective)
        # Both: the long window alone would go on firing after recovery, the short one alone would fire at every blip.
        return long.events >= self._min_events and long.bad_fraction > threshold and short.bad_fraction > threshold

    def _go_to(self, now_s: float) -> None:
        if now_s < self._now_s:
            raise ValueError(f"time went backwards, from {self._now_s:g} s to {now_s:g} s")
        self._now_s = now_s
        for window in self._windows.values():
            window.forget(now_s)


def replay(events: Events, monitor: BudgetMonitor) -> BudgetMonitor:
    """Feed a recorded run to `monitor`, checking after every event; return the monitor."""
    for now_s, bad in zip(events.times_s.tolist(), events.bad.tolist(), strict=True):
        monitor.add(now_s, 1, int(bad))
        monitor.check(now_s)
    return monitor
