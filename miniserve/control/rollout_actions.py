"""What a rollout is told, and what it asks its driver to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from miniserve.abtest.harm import Trials
from miniserve.control.guardrails import Breach, OutcomeBatch


@dataclass(frozen=True, slots=True)
class RolloutView:
    """What happened since the last tick, and how many replicas are ready now, by version."""

    batches: Mapping[str, OutcomeBatch] = field(default_factory=dict)
    ready: Mapping[str, int] = field(default_factory=dict)  # replicas


@dataclass(frozen=True, slots=True)
class SetShares:
    """Split the users like this; the new version comes first."""

    shares: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class SetMirror:
    """Also send this share of the requests to `version`, and discard its answers; 0 stops it."""

    version: str
    fraction: float


@dataclass(frozen=True, slots=True)
class RolledBack:
    """The record of a rollback; separate actions alongside it reset shares and mirror."""

    at_s: float
    after_s: float  # since the first stage began
    version: str
    stage: int
    share: float
    reason: str
    shown_answers: int  # of the new version, seen by users
    all_answers: int  # of either version, seen by users
    breach: Breach | None = None  # None: rolled back by hand

    @property
    def exposed_share(self) -> float:
        """Return the share of all answers that came from the new version."""
        return self.shown_answers / self.all_answers if self.all_answers else 0.0


@dataclass(frozen=True, slots=True)
class Retire:
    """`version` is no longer needed: its replicas may drain."""

    version: str


RolloutAction = SetShares | SetMirror | RolledBack | Retire


def restored_record(state: Mapping[str, Any], now_s: float) -> RolledBack:
    """Return the record that was kept in JSON's types, with its time as an age."""
    breach = state["breach"]
    if breach is not None:
        breach = Breach(**{**breach, "new": Trials(**breach["new"]), "old": Trials(**breach["old"])})
    return RolledBack(**{**state, "at_s": now_s - state["at_s"], "breach": breach})
