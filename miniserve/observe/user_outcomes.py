"""How users fared with each variant of an experiment, and what follows from it.

The outcome is the user's: each user counts once in each metric, with the mean over that user's answers, however much
some ask. So a user who asks all day does not decide for all others, and answers of one user need not be independent.

**What decides** is the share of liked answers, by a p-value that stays valid however often one looks
(`abtest.always_valid`; approximately, since a user's own mean goes on moving). The other metrics are shown with the
interval of a single look, to see what the change costs. **Before all that** stands the sample ratio: if the groups do
not have the sizes that the split gives them, nothing else means anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from miniserve.abtest.always_valid import AlwaysValid
from miniserve.abtest.means import SampleSummary, summarize, welch_t_of
from miniserve.abtest.power import sample_size_means
from miniserve.abtest.srm import ALARM_P, srm_p_value

MOST_USERS = 20_000  # of a variant; who comes later is served, and not counted
LEAST_USERS = 50  # with a verdict, in each group, before anything is said: the variances are estimated
TAU2 = 0.05**2  # of the always-valid test: effects of about five points are thought likely
ALPHA = 0.05


@dataclass(slots=True)
class UserSums:
    """One user's answers with one variant, added up."""

    answers: int = 0
    judged: int = 0
    good: int = 0
    ttft_s: float = 0.0
    e2e_s: float = 0.0
    tokens: int = 0
    retry: int = 0
    rephrase: int = 0
    abandon: int = 0
    returns: int = 0


@dataclass(frozen=True, slots=True)
class UserMetric:
    """A number per user. `higher_is_better` None: it is shown, and not judged."""

    name: str
    of: Callable[[UserSums], float | None]
    higher_is_better: bool | None


def _per_answer(name: str) -> Callable[[UserSums], float | None]:
    return lambda sums: getattr(sums, name) / sums.answers if sums.answers else None


DECIDES = UserMetric("liked", lambda sums: sums.good / sums.judged if sums.judged else None, True)
USER_METRICS = (
    DECIDES,
    UserMetric("ttft_s", _per_answer("ttft_s"), False),
    UserMetric("e2e_s", _per_answer("e2e_s"), False),
    UserMetric("tokens", _per_answer("tokens"), None),
    UserMetric("retry", _per_answer("retry"), False),
    UserMetric("rephrase", _per_answer("rephrase"), False),
    UserMetric("abandon", _per_answer("abandon"), False),
    UserMetric("returns", _per_answer("returns"), True),
)


@dataclass(slots=True)
class Compared:
    """One metric of both groups; `difference` is the second group minus the first."""

    metric: str
    means: tuple[float, float]
    difference: float
    low: float
    high: float
    p_value: float


@dataclass(slots=True)
class UserOutcomes:
    """All users of an experiment between two variants. `shares` are what the split gives each."""

    variants: tuple[str, str]
    shares: tuple[float, float]
    users: dict[str, dict[str, UserSums]] = field(default_factory=dict)  # by variant
    always_valid_p: float = 1.0

    def of(self, variant: str, user: str) -> UserSums | None:
        """Return a user's sums, new ones if need be; None for another variant, or beyond the bound."""
        if variant not in self.variants:
            return None
        there = self.users.setdefault(variant, {})
        if user not in there and len(there) >= MOST_USERS:
            return None
        return there.setdefault(user, UserSums())

    def counts(self) -> tuple[int, int]:
        """Return the number of users of each variant."""
        one, other = (len(self.users.get(variant, {})) for variant in self.variants)
        return one, other

    def mismatch_p(self) -> float | None:
        """Return the probability of groups this uneven by chance; None without users."""
        return srm_p_value(self.counts(), self.shares) if sum(self.counts()) else None

    def values(self, metric: UserMetric) -> tuple[list[float], list[float]]:
        """Return each user's value, by group."""
        one, other = (
            [value for sums in self.users.get(name, {}).values() if (value := metric.of(sums)) is not None]
            for name in self.variants
        )
        return one, other

    def compared(self, metric: UserMetric) -> Compared | None:
        """Compare one metric; None while a group has fewer than two users, or nobody differs."""
        groups = _summaries(self.values(metric))
        if groups is None:
            return None
        try:
            effect = welch_t_of(*groups, alpha=ALPHA)
        except ValueError:  # nobody differs from anybody
            return None
        means = (groups[0].mean, groups[1].mean)
        return Compared(metric.name, means, effect.difference, effect.low, effect.high, effect.p_value)

    def look(self) -> float:
        """Look at what decides, and return the always-valid p-value so far."""
        groups = _summaries(self.values(DECIDES))
        if groups is not None and min(group.n for group in groups) >= LEAST_USERS:
            variance = groups[0].sd ** 2 + groups[1].sd ** 2
            if variance > 0:
                pairs = 2 / (1 / groups[0].n + 1 / groups[1].n)
                test = AlwaysValid(TAU2)
                self.always_valid_p = min(
                    self.always_valid_p, test.look(pairs, groups[1].mean - groups[0].mean, variance)
                )
        return self.always_valid_p

    def users_needed(self, effect: float) -> int | None:
        """Return how many users each group needs, in one look, to see a difference of `effect` in what decides."""
        groups = _summaries(self.values(DECIDES))
        if groups is None:
            return None
        sd = math.sqrt((groups[0].sd ** 2 + groups[1].sd ** 2) / 2)
        return math.ceil(sample_size_means(effect / sd)) if sd > 0 else None

    def verdict(self, effect: float) -> str:
        """Return what follows, in a sentence."""
        one, other = self.variants
        mismatch_p = self.mismatch_p()
        if mismatch_p is not None and mismatch_p < ALARM_P:
            return (
                f"the groups do not have the sizes that the split gives them (p = {mismatch_p:.2g}): find out whom one "
                "of the variants loses, and believe no other figure"
            )
        liked = self.compared(DECIDES)
        if liked is not None and self.always_valid_p <= ALPHA:
            better, worse = (other, one) if liked.difference > 0 else (one, other)
            shares = liked.means if better == one else liked.means[::-1]
            return (
                f"{better} is better than {worse}: {shares[0]:.1%} of the answers are liked against {shares[1]:.1%} "
                f"(p = {self.always_valid_p:.2g}, valid at any look)"
            )
        judged = min(map(len, self.values(DECIDES)))
        needed = self.users_needed(effect)
        if needed is None or judged < LEAST_USERS:
            return f"cannot tell yet: {judged} users with a verdict in the smaller group, {LEAST_USERS} are the least"
        if judged < needed:
            return (
                f"cannot tell yet: a difference of {effect:.0%} needs about {needed} users with a verdict in each "
                f"group, and the smaller one has {judged}"
            )
        return f"no difference as large as {effect:.0%} is to be expected any more: {judged} users in the smaller group"

    def state(self) -> dict[str, Any]:
        """Return all of it in JSON's types."""
        users = {
            variant: {user: list(asdict(sums).values()) for user, sums in there.items()}
            for variant, there in self.users.items()
        }
        return {
            "variants": list(self.variants),
            "shares": list(self.shares),
            "users": users,
            "p": self.always_valid_p,
        }


def restored_outcomes(state: Mapping[str, Any]) -> UserOutcomes:
    """Return what a `state` says. Raises: ValueError, TypeError, LookupError for one that is none."""
    (one, other), (first, second) = state["variants"], state["shares"]
    outcomes = UserOutcomes((str(one), str(other)), (float(first), float(second)), always_valid_p=float(state["p"]))
    for variant, users in state["users"].items():
        outcomes.users[str(variant)] = {str(user): UserSums(*sums) for user, sums in users.items()}
    return outcomes


def _summaries(groups: tuple[Sequence[float], Sequence[float]]) -> tuple[SampleSummary, SampleSummary] | None:
    one, other = groups
    return (summarize(one), summarize(other)) if min(len(one), len(other)) >= 2 else None
