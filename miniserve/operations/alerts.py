"""What is wrong at the moment, told once when it begins and once when it is over.

Other parts say whether a condition holds (`report`); this one knows which alerts stand, since when, and whom to tell:
the event log, `GET /status` and the page, and a webhook. Two conditions are its own: that no replica is ready, and
that a model has none. An alert that stood when the gateway was killed still stands afterwards, and is not told twice.
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from typing import Any, Literal

from miniserve.operations.part import DeskPart
from miniserve.operations.webhook import Webhook
from miniserve.operations.workplace import Workplace
from miniserve.types import FleetView

Severity = Literal["page", "ticket"]
OUTAGE_S = 3.0  # without a ready replica: a restart of the only one takes longer, a probe that was missed does not
KEPT, SHOWN = 50, 10  # alerts that are over


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that a person should know. Times are seconds since 1970; `until_s` None: it stands."""

    name: str
    severity: Severity
    text: str
    since_s: float
    until_s: float | None = None


class AlertsPart(DeskPart):
    """The alerts of one gateway."""

    name = "alerts"

    def __init__(self, work: Workplace) -> None:
        self._work = work
        self._firing: dict[str, Alert] = {}
        self._over: deque[Alert] = deque(maxlen=KEPT)
        self._none_ready_since_s: float | None = None
        url = work.settings.alert_webhook
        self._webhook = None if url is None else Webhook(url, lambda text: work.events.say("alert", text, "warning"))

    @property
    def firing(self) -> tuple[Alert, ...]:
        """The alerts that stand, the oldest first."""
        return tuple(self._firing.values())

    @property
    def is_burning(self) -> bool:
        """Whether an error budget burns so fast that somebody should be woken."""
        return any(alert.severity == "page" and name.startswith("slo-") for name, alert in self._firing.items())

    def report(self, name: str, severity: Severity, text: str | None) -> None:
        """Say that the condition `name` holds, and what that means for people; None: it does not."""
        stands, now_s = self._firing.get(name), self._work.wall_clock()
        if text is not None and stands is None:
            self._firing[name] = Alert(name, severity, text, now_s)
            self._tell(self._firing[name])
        elif text is None and stands is not None:
            del self._firing[name]
            over = Alert(name, stands.severity, stands.text, stands.since_s, now_s)
            self._over.append(over)
            self._tell(over)

    def tick(self, now_s: float, view: FleetView) -> None:
        if view.ready():
            self._none_ready_since_s = None
        elif self._none_ready_since_s is None:
            self._none_ready_since_s = now_s
        since_s = self._none_ready_since_s
        is_out = since_s is not None and now_s - since_s >= OUTAGE_S
        self.report("no-replica", "page", "no replica is ready: nothing can be answered" if is_out else None)

    def _tell(self, alert: Alert) -> None:
        is_over = alert.until_s is not None
        level: Literal["good", "alarm", "warning"] = "good" if is_over else "alarm"
        if not is_over and alert.severity == "ticket":
            level = "warning"
        self._work.events.say("alert", f"over: {alert.text}" if is_over else alert.text, level)
        if self._webhook is not None:
            self._webhook.send({"status": "resolved" if is_over else "firing", **asdict(alert)})

    def status(self) -> object:
        latest = tuple(self._over)[-SHOWN:]
        return {"firing": [asdict(alert) for alert in self.firing], "over": [asdict(alert) for alert in latest]}

    def state(self) -> object:
        return {"firing": [asdict(alert) for alert in self.firing], "over": [asdict(alert) for alert in self._over]}

    def restore(self, state: Any) -> None:
        firing, over = ([_alert(fields) for fields in state[name]] for name in ("firing", "over"))
        self._firing = {alert.name: alert for alert in firing}
        self._over.extend(over)

    async def close(self) -> None:
        if self._webhook is not None:
            await self._webhook.close()


def _alert(fields: Any) -> Alert:
    alert = Alert(**fields)
    if alert.severity not in ("page", "ticket") or not isinstance(alert.since_s, float):
        raise ValueError(f"{fields} is no alert")
    return alert
