"""How much of the error budget is left, and how fast it goes: two promises, watched while they are kept.

    availability   calls must not fail through our fault
    speed          the first token must come within a limit

Alerts fire as `observe.slo` has it, with windows in proportion to the period. What failover saved is no failure: the
client had its answer. The counts survive a restart; the time that the gateway was down is not in them, since nobody
counted who was turned away.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from miniserve.api.answered import AnsweredCall
from miniserve.observe.slo import BudgetMonitor, BurnAlert, Objective, scaled_alerts
from miniserve.operations.alerts import AlertsPart
from miniserve.operations.part import DeskPart
from miniserve.operations.workplace import Workplace
from miniserve.types import FleetView

KEEP_EVERY_S = 5.0  # the windows' cells are thousands of numbers: a kill costs at most the events of so long
MIN_EVENTS = 50  # in an alert's long window, before it may fire


class SloPart(DeskPart):
    """Watches both objectives of one gateway."""

    name = "slo"

    def __init__(self, work: Workplace) -> None:
        settings = work.settings
        self._work = work
        self._ttft_s = settings.ttft_s
        alerts = scaled_alerts(settings.slo_period_s)
        self._goals = {
            "availability": "too many requests fail",
            "speed": f"too many answers begin after more than {settings.ttft_s:g} s",
        }
        targets = {"availability": settings.availability, "speed": settings.fast_fraction}
        self._monitors = {
            name: BudgetMonitor(
                Objective(target, settings.slo_period_s, name), _possible(alerts, target), min_events=MIN_EVENTS
            )
            for name, target in targets.items()
        }
        self._events = dict.fromkeys(targets, 0)
        self._bad = dict.fromkeys(targets, 0)
        self._kept: object = None
        self._kept_s = -KEEP_EVERY_S
        self._clock: Callable[[], float] = work.fleet.clock

    def answered(self, call: AnsweredCall) -> None:
        """Count a call; one that went wrong on the client's side is not an event."""
        if call.failed or call.is_complete:
            self._count("availability", call.failed)
        if call.ttft_s is not None:
            self._count("speed", call.ttft_s > self._ttft_s)

    def _count(self, name: str, is_bad: bool) -> None:
        self._monitors[name].add(self._clock(), 1, int(is_bad))
        self._events[name] += 1
        self._bad[name] += is_bad

    def tick(self, now_s: float, view: FleetView) -> None:
        alerts = self._work.part("alerts")
        for name, monitor in self._monitors.items():
            firing = set(monitor.check(now_s))
            for rank, alert in enumerate(monitor.alerts):
                if isinstance(alerts, AlertsPart):
                    alerts.report(
                        f"slo-{name}-{rank}",
                        "page" if alert.severity == "page" else "ticket",
                        self._words(name, alert) if alert in firing else None,
                    )

    def _words(self, name: str, alert: BurnAlert) -> str:
        burn = self._monitors[name].burn(alert.long_s)
        return (
            f"{self._goals[name]}: over {_span(alert.long_s)} the error budget burns {burn:.1f} times as fast as it may"
        )

    def status(self) -> object:
        return {name: self._section(name, monitor) for name, monitor in self._monitors.items()}

    def _section(self, name: str, monitor: BudgetMonitor) -> dict[str, Any]:
        return {
            "target": monitor.objective.target,
            "period_s": monitor.objective.period_s,
            "limit_s": self._ttft_s if name == "speed" else None,
            "events": self._events[name],
            "bad": self._bad[name],
            "budget_left": round(monitor.budget_left(), 4),
            "burn": {_span(alert.long_s): round(monitor.burn(alert.long_s), 3) for alert in monitor.alerts},
        }

    def state(self) -> object:
        now_s = self._clock()
        if now_s - self._kept_s >= KEEP_EVERY_S:
            self._kept_s = now_s
            self._kept = {
                "ttft_s": self._ttft_s,
                "events": dict(self._events),
                "bad": dict(self._bad),
                "monitors": {name: monitor.state() for name, monitor in self._monitors.items()},
            }
        return self._kept

    def restore(self, state: Any) -> None:
        if state["ttft_s"] != self._ttft_s:
            raise ValueError("it was counted against another limit")
        for name, monitor in self._monitors.items():
            monitor.restore(state["monitors"][name], self._clock())
            self._events[name], self._bad[name] = int(state["events"][name]), int(state["bad"][name])


def _possible(alerts: tuple[BurnAlert, ...], target: float) -> list[BurnAlert]:
    """Leave out what a total outage could not set off: 14.4 times the budget of a 95 % goal is still 72 %."""
    return [alert for alert in alerts if alert.burn * (1 - target) < 1]


def _span(seconds: float) -> str:
    return f"{seconds:g} s" if seconds < 90 else f"{seconds / 60:.3g} min"
