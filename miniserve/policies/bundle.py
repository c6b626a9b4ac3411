"""All the policies that decide how a request is handled, as one value to pass to `dispatch` or to a backend.

Each part is a small policy with its own module, and may be left out (None). Some parts keep state (budget, ejector,
progress watch, breakers), so a bundle belongs to one gateway: two gateways need two bundles.

The defaults are the live gateway's, and state its aims: fail over quickly, never multiply the load, and never blame an
innocent replica.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from miniserve.errors import SetupError
from miniserve.policies.admission.admission import Admission
from miniserve.policies.recovery.breaker import Breaker
from miniserve.policies.recovery.ejection import Ejector
from miniserve.policies.recovery.progress import ProgressWatch
from miniserve.policies.recovery.retry import Backoff, RetryPolicy
from miniserve.policies.recovery.retry_budget import Budget, RetryBudget, TokenThrottle
from miniserve.policies.routing.balancer import Balancer, LearningBalancer
from miniserve.policies.routing.router import ByModel, Router, Routers

Breakers = defaultdict[str, Breaker]


def breakers(make: Callable[[], Breaker] = Breaker) -> Breakers:
    """Return one breaker per replica, created when the replica is first used."""
    return defaultdict(make)


@dataclass(frozen=True, slots=True)
class Policies:
    """The policies of one gateway. Only the balancer has no default."""

    balancer: Balancer
    admission: Admission | None = None  # asked once, before anything else
    router: Router | None = None  # narrows the fleet before the balancer picks
    retry: RetryPolicy = field(default_factory=Backoff)
    budget: Budget | None = field(default_factory=RetryBudget)  # asked before every retry and hedge
    # A 500 may be the request's fault or the replica's, and asking another replica settles it. This budget stops asking
    # once the answer has mostly been "the request's" (gRPC's throttle: 5 in a row, then one per 10 successes).
    second_opinions: Budget | None = field(default_factory=TokenThrottle)
    ejector: Ejector | None = field(default_factory=Ejector)
    progress: ProgressWatch | None = field(default_factory=ProgressWatch)
    breakers: Breakers | None = None  # off: the ejector does their job, and sees all replicas at once
    hedge_after_s: float | None = None  # off: hedging adds load; the usual value is the p95 of the time to first token
    first_token_s: float | None = 30.0  # wait this long for a first token if another replica could be asked instead ...
    first_token_share: float | None = 1 / 3  # ... or this share of the time left to the deadline, if that is less
    resume: bool = True  # continue a broken stream elsewhere, after the tokens the client already has
    same_replica: bool = False  # once all have been tried, start over with the same ones: what a naive client does
    learner: LearningBalancer | None = field(init=False, repr=False, compare=False)  # the balancer, if it is one

    def __post_init__(self) -> None:
        for name in ("hedge_after_s", "first_token_s", "first_token_share"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise SetupError(f"{name} ({value}) must be 0 or more, or None")
        learner = self.balancer if isinstance(self.balancer, LearningBalancer) else None
        object.__setattr__(self, "learner", learner)  # found once: such a check is slow

    def first_token_within_s(self, left_s: float | None) -> float | None:
        """Return how long an attempt may take to produce its first token, `left_s` before the request's deadline."""
        if left_s is None or self.first_token_share is None:
            return self.first_token_s
        share_s = left_s * self.first_token_share
        return share_s if self.first_token_s is None else min(share_s, self.first_token_s)


def by_model(policies: Policies, pin: Router | None = None) -> Policies:
    """Return the same policies for a fleet of several models: a request only ever goes to replicas of its own.

    `pin` chooses among a model's versions, before the router that is configured.
    """
    both = None if pin is None or policies.router is None else Routers(pin, policies.router)
    return replace(policies, router=ByModel(both or pin or policies.router))
