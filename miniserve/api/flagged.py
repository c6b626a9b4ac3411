"""What a feature flag changes in a call: which model answers, and what the client is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Flagged:
    """What holds for one call: the model that answers, and the flags that are on for its user."""

    model: str
    flags: tuple[str, ...] = ()


FlagLookup = Callable[[str, str, str], Flagged]  # the model asked for, the user ("": unknown), the cohort ("": none)


def no_flags(model: str, user: str, cohort: str) -> Flagged:
    """Change nothing: a server without flags."""
    return Flagged(model)
