"""What one tenant may use: requests and tokens per minute, requests at once, and tokens in total.

The cost of a generation is known only when it ends. So its worst case (prompt and `max_tokens`) is *reserved* before it
starts, and the unused part given back when it ends. Checking before and charging after would let a thousand concurrent
requests through on a quota for one.

    remaining + reserved + spent = budget, at every moment

There are two equivalent rate limits: `TokenBucket` counts what is left, `GCRA` keeps the moment at which the bucket
would be full again. All amounts are integers (floats would make the two disagree at the edge), so they decide alike on
any list of arrivals. They know only the time they are told; if it goes backwards, they stand still.

Source: ITU-T I.371 (GCRA).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from miniserve.errors import SetupError
from miniserve.policies.admission.admission import AdmissionVerdict, Admit, Reject
from miniserve.types import FleetView, Request

_NS = 1_000_000_000


class RateLimit(Protocol):
    """`rate_per_s` units per second on average, `burst` at once."""

    def wait_s(self, now_s: float, cost: int = 1) -> float:
        """Return the seconds after which `cost` would be granted: 0 = now, infinite = never (it exceeds the burst)."""
        ...

    def take(self, now_s: float, cost: int = 1) -> bool:
        """Take `cost` units if they are available; return whether they were."""
        ...

    def give_back(self, now_s: float, cost: int) -> None:
        """Put back units that were taken but not used; a negative number takes more, even if they are not available."""
        ...


class _Scaled:
    """Integer arithmetic: one nanosecond earns `earn` units of account, and one unit of cost is worth `price`."""

    def __init__(self, *, rate_per_s: float = 1.0, burst: int = 1) -> None:
        rate = Fraction(rate_per_s).limit_denominator(1_000_000) if math.isfinite(rate_per_s) else Fraction(0)
        if rate <= 0 or burst < 1:
            raise SetupError(f"rate_per_s ({rate_per_s}) must be a positive number and burst ({burst}) at least 1")
        self._earn = rate.numerator
        self._price = rate.denominator * _NS
        self._full = burst * self._price
        self._now_ns = 0

    def _seconds(self, units: int) -> float:
        """Return how long it takes to earn `units`, rounded up: after that, they are available."""
        return -(-units // self._earn) / _NS

    def _pass_time(self, now_s: float) -> int:
        """Return the nanoseconds since the last call."""
        now_ns = max(self._now_ns, round(now_s * _NS))
        passed_ns, self._now_ns = now_ns - self._now_ns, now_ns
        return passed_ns


class TokenBucket(_Scaled):
    """A bucket that fills at `rate_per_s`, up to `burst`; requests take out what they cost."""

    def __init__(self, *, rate_per_s: float = 1.0, burst: int = 1) -> None:
        super().__init__(rate_per_s=rate_per_s, burst=burst)
        self._level = self._full

    def wait_s(self, now_s: float, cost: int = 1) -> float:
        self._level = min(self._full, self._level + self._earn * self._pass_time(now_s))
        if cost * self._price > self._full:
            return math.inf
        return self._seconds(max(0, cost * self._price - self._level))

    def take(self, now_s: float, cost: int = 1) -> bool:
        if self.wait_s(now_s, cost) > 0:
            return False
        self._level -= cost * self._price
        return True

    def give_back(self, now_s: float, cost: int) -> None:
        self.wait_s(now_s)
        self._level += cost * self._price  # anything above the brim spills before it can be taken


class GCRA(_Scaled):
    """The generic cell rate algorithm: one number, the moment at which the bucket would be full (in earned units)."""

    def __init__(self, *, rate_per_s: float = 1.0, burst: int = 1) -> None:
        super().__init__(rate_per_s=rate_per_s, burst=burst)
        self._full_at = 0

    def wait_s(self, now_s: float, cost: int = 1) -> float:
        self._pass_time(now_s)
        if cost * self._price > self._full:
            return math.inf
        after = max(self._now(), self._full_at) + cost * self._price
        return self._seconds(max(0, after - self._full - self._now()))

    def take(self, now_s: float, cost: int = 1) -> bool:
        if self.wait_s(now_s, cost) > 0:
            return False
        self._full_at = max(self._now(), self._full_at) + cost * self._price
        return True

    def give_back(self, now_s: float, cost: int) -> None:
        self._pass_time(now_s)
        self._full_at = max(self._now(), self._full_at) - cost * self._price

    def _now(self) -> int:
        return self._now_ns * self._earn


# --- one tenant's quota --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class QuotaLimits:
    """What a tenant may use; None = no limit. A minute's worth may be used at once."""

    requests_per_min: int | None = None
    tokens_per_min: int | None = None
    concurrent: int | None = None
    budget_tokens: int | None = None

    def __post_init__(self) -> None:
        for name in ("requests_per_min", "tokens_per_min", "concurrent"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise SetupError(f"{name} ({value}) must be at least 1, or None for no limit")
        if self.budget_tokens is not None and self.budget_tokens < 0:
            raise SetupError(f"budget_tokens ({self.budget_tokens}) must be at least 0, or None for no limit")


@dataclass(frozen=True, slots=True, eq=False)
class Reservation:
    """Permission for one request to use up to `tokens`. Settle it exactly once."""

    tokens: int


class TenantQuota:
    """One tenant's account."""

    def __init__(self, limits: QuotaLimits, *, rate_limit: Callable[..., RateLimit] = GCRA) -> None:
        self.limits = limits
        self.spent_tokens = 0
        self.reserved_tokens = 0
        self._open: set[Reservation] = set()
        self._requests, self._tokens = (
            None if limit is None else rate_limit(rate_per_s=limit / 60, burst=limit)
            for limit in (limits.requests_per_min, limits.tokens_per_min)
        )

    @property
    def concurrent(self) -> int:
        return len(self._open)

    @property
    def remaining_tokens(self) -> float:
        """Return what is left of the budget after reservations; infinite if there is no budget."""
        budget = math.inf if self.limits.budget_tokens is None else self.limits.budget_tokens
        return budget - self.spent_tokens - self.reserved_tokens

    def reserve(self, tokens: int, now_s: float) -> Reservation | Reject:
        """Set aside `tokens` for a request, or take nothing and return which limit is in the way."""
        if (refusal := self._refusal(tokens, now_s)) is not None:
            return refusal
        if self._requests is not None:
            self._requests.take(now_s)
        if self._tokens is not None:
            self._tokens.take(now_s, tokens)
        reservation = Reservation(tokens)
        self._open.add(reservation)
        self.reserved_tokens += tokens
        return reservation

    def settle(self, reservation: Reservation, tokens: int, now_s: float) -> None:
        """Replace a reservation with what was used (0 refunds all of it). Raises: KeyError if already settled."""
        self._open.remove(reservation)
        self.reserved_tokens -= reservation.tokens
        self.spent_tokens += tokens
        if self._tokens is not None:
            self._tokens.give_back(now_s, reservation.tokens - tokens)

    def cancel(self, reservation: Reservation, now_s: float) -> None:
        """Undo a reservation whose request never started: it does not count as a request either."""
        self.settle(reservation, 0, now_s)
        if self._requests is not None:
            self._requests.give_back(now_s, 1)

    def _refusal(self, tokens: int, now_s: float) -> Reject | None:
        limits = self.limits
        if tokens > self.remaining_tokens:
            message = f"the request may use {tokens} tokens, {self.remaining_tokens:.0f} are left in the budget"
            return Reject(429, "insufficient_quota", message)
        if limits.concurrent is not None and self.concurrent >= limits.concurrent:
            message = f"{self.concurrent} requests are running, {limits.concurrent} are allowed at once"
            return Reject(429, "rate_limit_exceeded", message, 1.0)
        if self._requests is not None and (wait_s := self._requests.wait_s(now_s)) > 0:
            message = f"{limits.requests_per_min} requests per minute are used up; try again in {wait_s:.1f} s"
            return Reject(429, "rate_limit_exceeded", message, wait_s)
        if self._tokens is None or (wait_s := self._tokens.wait_s(now_s, tokens)) == 0:
            return None
        if wait_s == math.inf:
            message = f"the request may use {tokens} tokens, more than the {limits.tokens_per_min} of a whole minute"
            return Reject(429, "request_too_large", message)
        message = f"{limits.tokens_per_min} tokens per minute are used up; try again in {wait_s:.1f} s"
        return Reject(429, "rate_limit_exceeded", message, wait_s)


class QuotaAdmission:
    """Admits by the tenant's quota: the worst case is reserved, and the unused part given back at the end.

    Tenants with limits of their own keep their accounts for ever. Of the others, whom any client may invent, the last
    `strangers` are remembered: beyond that, whoever has been away longest, with nothing running, starts afresh.
    """

    def __init__(
        self,
        *,
        limits: Mapping[str, QuotaLimits] | None = None,
        default: QuotaLimits | None = None,
        strangers: int = 10_000,
    ) -> None:
        if strangers < 1:
            raise SetupError(f"strangers ({strangers}) must be at least 1")
        self._limits = dict(limits or {})
        self._default = default or QuotaLimits()
        self._most_strangers = strangers
        self._quotas = {tenant: TenantQuota(mine) for tenant, mine in self._limits.items()}
        self._strangers: OrderedDict[str, TenantQuota] = OrderedDict()  # the one seen last comes last
        self._reservations: dict[str, Reservation] = {}  # of each request that is inside

    def quota(self, tenant: str) -> TenantQuota:
        """Return the tenant's account."""
        if tenant in self._quotas:
            return self._quotas[tenant]
        if tenant not in self._strangers:
            self._strangers[tenant] = TenantQuota(self._default)
            self._forget()
        self._strangers.move_to_end(tenant)
        return self._strangers[tenant]

    def _forget(self) -> None:
        """Drop the account that is one too many; none with a request inside, which is settled where it was reserved."""
        if len(self._strangers) > self._most_strangers:
            newest = next(reversed(self._strangers))
            idle = (tenant for tenant, held in self._strangers.items() if not held.concurrent and tenant != newest)
            if (longest_away := next(idle, None)) is not None:
                del self._strangers[longest_away]

    def decide(self, request: Request, view: FleetView, now_s: float) -> AdmissionVerdict:
        worst_tokens = len(request.prompt_ids) + request.sampling.max_tokens
        held = self.quota(request.tenant).reserve(worst_tokens, now_s)
        if isinstance(held, Reject):
            return held
        self._reservations[request.request_id] = held
        return Admit()

    def finished(self, request: Request, tokens: int | None, now_s: float) -> None:
        quota, reservation = self.quota(request.tenant), self._reservations.pop(request.request_id)
        if tokens is None:
            quota.cancel(reservation, now_s)
        else:
            quota.settle(reservation, tokens, now_s)
