"""Input checks shared by all statistics here: each error names the value and what is allowed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def check_fraction(name: str, value: float) -> None:
    """Raises: ValueError if `value` is not strictly between 0 and 1."""
    if not 0 < value < 1:
        raise ValueError(f"{name} ({value}) must lie strictly between 0 and 1")


def check_positive(name: str, value: float) -> None:
    """Raises: ValueError if `value` is not above 0 (or is nan)."""
    if not value > 0:
        raise ValueError(f"{name} ({value}) must be above 0")


def check_trials(successes: float, trials: float) -> None:
    """Raises: ValueError unless 0 <= successes <= trials and there is at least one trial."""
    if not trials > 0:
        raise ValueError(f"a proportion needs at least 1 trial, not {trials}")
    if not 0 <= successes <= trials:
        raise ValueError(f"successes ({successes}) must lie between 0 and the number of trials ({trials})")


def as_sample(name: str, values: Sequence[float] | Floats, least: int = 2) -> Floats:
    """Return the values as an array.

    Raises: ValueError if there are fewer than `least`, or one is not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) < least:
        raise ValueError(f"{name} must be at least {least} numbers in a row, but has shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has values that are not finite numbers")
    return array
