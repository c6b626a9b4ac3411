"""What an operator may set about operations: what clients are promised, and whom to tell if it is not kept."""

from __future__ import annotations

import math
from dataclasses import dataclass
from urllib.parse import urlsplit

from miniserve.errors import SetupError


@dataclass(frozen=True, slots=True)
class OperatorSettings:
    """The goals of a gateway, and where its alerts go.

    The period is short, because a demo has no month to lose: the alerts' windows, made for 30 days, shrink with it
    (`observe.slo.scaled_alerts`). Over six hours the fast page looks at 30 s and 2.5 s.
    """

    availability: float = 0.99  # share of calls that must not fail through our fault
    fast_fraction: float = 0.95  # share of answers ...
    ttft_s: float = 2.0  # ... whose first token must come within so many seconds
    slo_period_s: float = 6 * 3600.0
    usd_per_replica_hour: float = 0.0  # what a replica costs from its order to its end
    alert_webhook: str | None = None  # is sent each alert that begins or ends

    def __post_init__(self) -> None:
        """Raises: SetupError naming the option that is wrong."""
        for name in ("availability", "fast_fraction"):
            if not 0 < getattr(self, name) < 1:
                raise SetupError(f"{name} ({getattr(self, name):g}) must lie between 0 and 1")
        for name in ("ttft_s", "slo_period_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise SetupError(f"{name} ({getattr(self, name):g}) must be above 0 and finite")
        if not 0 <= self.usd_per_replica_hour < math.inf:
            raise SetupError(f"usd_per_replica_hour ({self.usd_per_replica_hour:g}) must be at least 0 and finite")
        if self.alert_webhook is not None:
            url = urlsplit(self.alert_webhook)
            if url.scheme not in ("http", "https") or not url.hostname:
                raise SetupError(f"--alert-webhook {self.alert_webhook!r} is no http(s) address")
