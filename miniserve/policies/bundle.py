"""Everything that decides how one request gets through, as one value: pass it to `dispatch`, or to a backend.

Each part is a small policy of a module of its own and may be left out (None). Parts that remember (budget, ejector,
progress watch, breakers) make a bundle belong to one gateway: two gateways need two bundles.

The defaults are those of the live gateway, and say what it is for: fail over quickly, never multiply the load, and
blame nobody who is not guilty.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from miniserve.errors import SetupError
from miniserve.policies.admission.admission import Admission
from miniserve.policies.recovery.breaker import Breaker
from miniserve.policies.recovery.ejection import Ejector
from miniserve.policies.recovery.progress import ProgressWatch
from miniserve.policies.recovery.retry import Backoff, RetryPolicy
from miniserve.policies.recovery.retry_budget import Budget, RetryBudget, TokenThrottle
from miniserve.policies.routing.balancer import Balancer, LearningBalancer
from miniserve.policies.routing.router import Router

Breakers = defaultdict[str, Breaker]


def breakers(make: Callable[[], Breaker] = Breaker) -> Breakers:
    """Return one breaker per replica, made when the replica is first met."""
    return defaultdict(make)


@dataclass(frozen=True, slots=True)
class Policies:
    """The policies of one gateway. Only the balancer has no default."""

    balancer: Balancer
    admission: Admission | None = None  # asked once, before anything else
    router: Router | None = None  # narrows the fleet before the balancer picks
    retry: RetryPolicy = field(default_factory=Backoff)
    budget: Budget | None = field(default_factory=RetryBudget)  # asked before every retry and hedge
    # A 500 may be the request's fault or the replica's: another replica knows. This says whether such questions still
    # pay; when many were answered "the request's", it refuses (gRPC's throttle: 5 in a row, then one per 10 successes).
    second_opinions: Budget | None = field(default_factory=TokenThrottle)
    ejector: Ejector | None = field(default_factory=Ejector)
    progress: ProgressWatch | None = field(default_factory=ProgressWatch)
    breakers: Breakers | None = None  # the ejector does their work here, with one view of all replicas
    hedge_after_s: float | None = None  # hedging costs load, so it must be wanted; the p95 of the first token is usual
    first_token_s: float | None = 30.0  # wait so long for a first token where another replica could be asked; then do
    first_token_share: float | None = 1 / 3  # ... or this share of what is left until the deadline, if that is less
    resume: bool = False  # continue a broken stream elsewhere, after the tokens that the client already has
    same_replica: bool = False  # when all were tried, begin again with the first: what a naive client does
    learner: LearningBalancer | None = field(init=False, repr=False, compare=False)  # the balancer, if it is one

    def __post_init__(self) -> None:
        for name in ("hedge_after_s", "first_token_s", "first_token_share"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise SetupError(f"{name} ({value}) must be 0 or more, or None")
        learner = self.balancer if isinstance(self.balancer, LearningBalancer) else None
        object.__setattr__(self, "learner", learner)  # found once: such a check is slow

    def first_token_within_s(self, left_s: float | None) -> float | None:
        """Return how long an attempt may take to its first token, with `left_s` to the request's deadline."""
        if left_s is None or self.first_token_share is None:
            return self.first_token_s
        share_s = left_s * self.first_token_share
        return share_s if self.first_token_s is None else min(share_s, self.first_token_s)
