"""A rollout as a person asks for it: the version, the strategy, and what is watched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from miniserve.control.guardrails import Guardrail
from miniserve.control.rollout import Rollout, Stage, blue_green, canary, shadow
from miniserve.errors import SetupError

Strategy = Literal["canary", "blue-green", "shadow", "ramp"]
STRATEGIES: tuple[Strategy, ...] = ("canary", "blue-green", "shadow", "ramp")


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """What `build` makes a `Rollout` of. Shares are fractions; `alpha` is shared out among the guardrails."""

    new: str  # served name of the version
    strategy: Strategy = "canary"
    shares: tuple[float, ...] = (0.01, 0.1, 0.5, 1.0)  # of a canary or a ramp
    min_answers: int = 1400  # of the new version in each stage
    min_s: float = 0.0  # that each stage lasts
    mirror: float = 0.1  # of the requests, in a shadow
    replicas: int = 0  # of the new version; 0: as many as the old one has
    keep_warm_s: float = 600.0
    alpha: float = 0.05
    errors_harm: float = 0.02
    slow_harm: float = 0.025
    bad_harm: float = 0.03
    errors_limit: float = 0.05  # where nothing is left to compare with
    min_judged: int = 50  # answers of the new version before any verdict

    def __post_init__(self) -> None:
        """Raises: SetupError for a strategy that is none, or numbers outside their ranges."""
        if self.strategy not in STRATEGIES:
            raise SetupError(f"strategy is {self.strategy!r}; it must be one of {', '.join(STRATEGIES)}")
        if self.replicas < 0:
            raise SetupError(f"replicas ({self.replicas}) must be at least 0")

    def build(self, old: str, new: str) -> Rollout:
        """Return the rollout. Raises: SetupError for an impossible plan."""
        rails = (
            Guardrail("errors", self.errors_harm, 0.2 * self.alpha, limit=self.errors_limit),
            Guardrail("slow", self.slow_harm, 0.3 * self.alpha),
            Guardrail("bad", self.bad_harm, 0.5 * self.alpha),
        )
        rollout = Rollout(
            old, new, self._stages(), guardrails=rails, min_answers=self.min_judged, keep_warm_s=self.keep_warm_s
        )
        return rollout

    def _stages(self) -> list[Stage]:
        if self.strategy == "blue-green":
            return blue_green(max(1, self.replicas))
        if self.strategy == "shadow":
            return shadow(self.mirror, min_answers=self.min_answers)
        return canary(self.shares, min_answers=self.min_answers, min_s=self.min_s)
