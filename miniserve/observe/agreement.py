"""An SLA: what is owed to a customer when a promise was not kept. Looser than the goal behind it (`slo.Objective`)."""

from __future__ import annotations

from dataclasses import dataclass

from miniserve.errors import SetupError
from miniserve.observe.slo import Objective


@dataclass(frozen=True, slots=True)
class Agreement:
    """An SLA: below each bound on the share of good events, part of the month's bill is refunded.

    `credits` maps a bound to a fraction of the bill: {0.999: 0.1, 0.99: 0.25} owes 10 % below 99.9 %, 25 % below 99 %.
    """

    credits: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        bounds, fractions = [bound for bound, _ in self.credits], [fraction for _, fraction in self.credits]
        if not bounds or bounds != sorted(set(bounds), reverse=True) or fractions != sorted(fractions):
            raise SetupError(f"credits must have falling bounds and rising fractions, not {self.credits}")
        if not all(0 < bound <= 1 for bound in bounds) or not all(0 <= fraction <= 1 for fraction in fractions):
            raise SetupError(f"bounds and fractions of credits lie between 0 and 1, not {self.credits}")

    def credit_usd(self, good_fraction: float, bill_usd: float) -> float:
        """Return what is owed to a customer who paid `bill_usd` for a month with `good_fraction` good events.

        Raises: ValueError for a share outside 0 to 1 or a negative bill.
        """
        if not 0 <= good_fraction <= 1 or not bill_usd >= 0:
            raise ValueError(f"good_fraction ({good_fraction}) must be a share and bill_usd ({bill_usd}) at least 0")
        return bill_usd * max((share for bound, share in self.credits if good_fraction < bound), default=0.0)

    def check(self, objective: Objective) -> None:
        """Raises: SetupError if the promise is as strict as our own goal: then nothing warns us before we owe money."""
        if self.credits[0][0] >= objective.target:
            raise SetupError(
                f"the agreement promises {self.credits[0][0]:.4%} and the objective is {objective.target:.4%}: "
                "promise less than you aim for"
            )
