"""What a fleet costs: a machine is paid for from the moment it is ordered until it is given back.

Cold starts, idle hours, and the time between a crash and a restart cost the same as any other time. An `Account`
follows one replica; a `Bill` adds accounts up by hardware and kind of purchase. Knows only times and prices.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(slots=True)
class Account:
    """One replica's time. Busy means that at least one request is in it, or on its way to or from it."""

    replica_id: str
    hardware: str
    spot: bool
    usd_per_hour: float
    since_s: float
    until_s: float | None = None  # given back
    ready_s: float | None = None  # first ready for requests
    busy_s: float = 0.0
    _busy_since_s: float | None = None

    def begin_work(self, now_s: float) -> None:
        self._busy_since_s = now_s

    def end_work(self, now_s: float) -> None:
        if self._busy_since_s is not None:
            self.busy_s += now_s - self._busy_since_s
            self._busy_since_s = None

    def close(self, now_s: float) -> None:
        self.end_work(now_s)
        self.until_s = now_s

    def line(self, now_s: float) -> BillLine:
        """Return this account as of `now_s`, which may be earlier than what it has seen since."""
        until_s = max(self.since_s, now_s if self.until_s is None else min(self.until_s, now_s))
        paid_s = until_s - self.since_s
        starting_s = (until_s if self.ready_s is None else min(self.ready_s, until_s)) - self.since_s
        busy_s = self.busy_s + (0.0 if self._busy_since_s is None else max(0.0, now_s - self._busy_since_s))
        busy_s = min(busy_s, paid_s)
        return BillLine(self.hardware, self.spot, 1, paid_s, starting_s, busy_s, paid_s / 3600 * self.usd_per_hour)


@dataclass(frozen=True, slots=True)
class BillLine:
    """All replicas of one hardware type and kind of purchase."""

    hardware: str
    spot: bool
    replicas: int
    paid_s: float  # replica-seconds
    starting_s: float  # of these, before the first request could come
    busy_s: float
    usd: float

    @property
    def idle_fraction(self) -> float:
        return 1.0 - self.busy_s / self.paid_s if self.paid_s > 0 else 0.0

    def __add__(self, other: BillLine) -> BillLine:
        return BillLine(
            self.hardware if self.hardware == other.hardware else "all",
            self.spot and other.spot,
            self.replicas + other.replicas,
            self.paid_s + other.paid_s,
            self.starting_s + other.starting_s,
            self.busy_s + other.busy_s,
            self.usd + other.usd,
        )


@dataclass(frozen=True, slots=True)
class Bill:
    """All replicas that a fleet ever had: by hardware and purchase, and one by one in order of arrival."""

    lines: tuple[BillLine, ...]
    replicas: tuple[tuple[str, BillLine], ...]

    @property
    def total(self) -> BillLine:
        return sum(self.lines, BillLine("all", False, 0, 0.0, 0.0, 0.0, 0.0))


def bill(accounts: Iterable[Account], now_s: float) -> Bill:
    """Add up `accounts` as of `now_s`."""
    replicas = tuple((account.replica_id, account.line(now_s)) for account in accounts)
    lines: dict[tuple[str, bool], BillLine] = {}
    for _, line in replicas:
        key = (line.hardware, line.spot)
        lines[key] = lines[key] + line if key in lines else line
    return Bill(tuple(lines[key] for key in sorted(lines)), replicas)
