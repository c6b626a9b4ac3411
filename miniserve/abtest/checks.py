"""Input checks shared by all statistics here: each error names the value and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def check_fraction(name: str, value: float) -> None:
    """Raises: ValueError if `value` is not strictly between 0 and 1."""
    if not 0 < value < 1:
        raise ValueError(f"{name} ({value}) must lie strictly between 0 and 1")


def check_positive(name: str, value: float) -> None:
    """Raises: ValueError if `value` is not above 0, or not finite."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name} ({value}) must be above 0" + (" and finite" if value == math.inf else ""))


def check_finite(name: str, value: float) -> None:
    """Raises: ValueError if `value` is infinite or nan."""
    if not math.isfinite(value):
        raise ValueError(f"{name} ({value}) must be a finite number")


def count_of(value: float) -> float:
    """Return a count as a plain number: sums of numpy's 32-bit integers wrap around.

    Raises: ValueError if it is infinite or nan.
    """
    if not math.isfinite(value):
        raise ValueError(f"a count ({value}) must be a finite number")
    return int(value) if value == int(value) else float(value)


def check_trials(successes: float, trials: float) -> None:
    """Raises: ValueError unless 0 <= successes <= trials and there is at least one trial."""
    check_finite("trials", trials)
    if not trials > 0:
        raise ValueError(f"a proportion needs at least 1 trial, not {trials}")
    if not 0 <= successes <= trials:
        raise ValueError(f"successes ({successes}) must lie between 0 and the number of trials ({trials})")


def varies(values: Floats) -> bool:
    """Return whether the values differ by more than rounding: the mean of ten times 0.04 is not quite 0.04."""
    return spread_beyond_rounding(float(np.std(values)), float(np.abs(values).max())) > 0


def spread_beyond_rounding(sd: float, size: float) -> float:
    """Return a standard deviation; 0 if values of this size could owe it to rounding alone."""
    return sd if sd > 10 * math.ulp(size) else 0.0


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
