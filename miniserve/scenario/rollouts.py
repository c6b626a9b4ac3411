"""The table `[rollout]`: a plan as a live stack has it, and what it meets in a simulation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from miniserve.control.rollout_plan import RolloutPlan, Strategy
from miniserve.toml.reader import Count, Fraction, NotNegative


@dataclass(frozen=True, slots=True)
class RolloutSection:
    """One version taking the place of another: the plan that `miniserve rollout start` makes live, and what it meets.

    `old` and `new` are versions of groups of the fleet. The new one's replicas are ordered at `at_s`.
    """

    old: str
    new: str
    at_s: NotNegative = 0.0
    strategy: Strategy = "canary"
    shares: tuple[Fraction, ...] = (0.01, 0.1, 0.5, 1.0)
    min_answers: Count = 1400
    min_s: NotNegative = 0.0
    mirror: Fraction = 0.1
    keep_warm_s: NotNegative = 600.0
    alpha: Fraction = 0.05
    errors_harm: Fraction = 0.02
    slow_harm: Fraction = 0.025
    bad_harm: Fraction = 0.03
    errors_limit: Fraction = 0.05
    bad_fraction: Mapping[str, Fraction] = field(default_factory=dict)  # of a version's answers, by version
    judged_fraction: Fraction = 1.0  # of all answers: somebody says whether they are good

    def plan(self, replicas: int) -> RolloutPlan:
        """Return the plan, for a fleet with so many replicas of the new version. Raises: SetupError."""
        names = ("shares", "min_answers", "min_s", "mirror", "keep_warm_s", "alpha")
        said = {name: getattr(self, name) for name in (*names, "errors_harm", "slow_harm", "bad_harm", "errors_limit")}
        return RolloutPlan(self.new, self.strategy, replicas=replicas, **said)
