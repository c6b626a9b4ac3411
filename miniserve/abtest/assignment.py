"""Who sees which variant: sticky, without a table of users, and independent from one experiment to the next.

A user's place in [0, 1) is a hash of the salt and the user, so it stays the same tomorrow and on every machine.
Variants are stretches of that line. The salt (by default the experiment's name) shuffles the line: without one, the
users who got the new variant in the last experiment would get it again in this one, and bring the old effects with
them.

Randomise users, not requests: the outcome is the user's. A user who switches variants between two requests belongs to
neither group.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from miniserve.errors import SetupError
from miniserve.seeds import bucket, uniform

BUCKETS = 10_000  # the finest share is 0.01 %


class SplitExperiment:
    """An A/B/n test. `shares` maps variants to their shares; the rest of the users stay outside the experiment.

    If `cohorts` are named, only their users take part. `salt` makes experiments independent; give two the same salt
    only to keep the same split on purpose.
    """

    def __init__(
        self, name: str, shares: Mapping[str, float], *, cohorts: Collection[str] = (), salt: str | None = None
    ) -> None:
        if not name:
            raise SetupError("an experiment needs a name: its users are shuffled by it")
        finite = all(math.isfinite(share) for share in shares.values())
        if not shares or not finite or min(shares.values()) < 0 or not 0 < sum(shares.values()) <= 1 + 1e-9:
            raise SetupError(f"shares of experiment {name!r} must be >= 0 and add up to at most 1, not {dict(shares)}")
        if too_small := [variant for variant, share in shares.items() if 0 < share < (1 - 1e-9) / BUCKETS]:
            raise SetupError(
                f"experiment {name!r} would show {too_small[0]!r} ({shares[too_small[0]]:g}) to nobody: "
                f"the smallest share is {1 / BUCKETS:g}"
            )
        self.name = name
        self.shares = dict(shares)
        self._salt = name if salt is None else salt
        self._cohorts = frozenset(cohorts)

    def bucket_of(self, user: str) -> int:
        """Return the user's bucket, 0 to 9,999."""
        return bucket("experiment", self._salt, user, buckets=BUCKETS)

    def variant_of(self, user: str, cohort: str = "") -> str | None:
        """Return the user's variant, or None if the user is not part of the experiment."""
        if self._cohorts and cohort not in self._cohorts:
            return None
        place = self.bucket_of(user)
        edge = 0.0
        for variant, share in self.shares.items():
            edge += share
            # Rounding edges, not shares, loses no bucket between two variants; halves up, or two edges could meet.
            if place < math.floor(edge * BUCKETS + 0.5 + 1e-9):
                return variant
        return None


class Flag:
    """A feature that is on for some: named users first, then cohorts, then a share of all users.

    Growing the share never switches a user off: each user has one place on the line, and the share is how much of it is
    on.
    """

    def __init__(
        self,
        name: str,
        share: float = 0.0,
        *,
        on: Collection[str] = (),
        off: Collection[str] = (),
        cohorts: Mapping[str, float] | None = None,
    ) -> None:
        for what, value in {"all users": share, **(cohorts or {})}.items():
            if not 0 <= value <= 1:
                raise SetupError(f"flag {name!r}: the share of {what} ({value}) must lie between 0 and 1")
        if both := set(on) & set(off):
            raise SetupError(f"flag {name!r} is both on and off for {sorted(both)}")
        self.name = name
        self.share = share
        self._on, self._off = frozenset(on), frozenset(off)
        self._cohorts = dict(cohorts or {})

    def is_on(self, user: str, cohort: str = "") -> bool:
        """Return whether this user has the feature. The user's own entry beats the cohort's, which beats the share.

        Who is not known ("") has only what all have: all of those together are no user.
        """
        if user in self._on or user in self._off:
            return user in self._on
        share = self._cohorts.get(cohort, self.share)
        return uniform("flag", self.name, user) < share if user else share == 1
