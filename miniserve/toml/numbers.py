"""Which numbers a file may hold at all: finite ones, of a size that some quantity of serving could have.

Beyond these limits arithmetic and loops break down far from the line that is to blame. Nothing comes near them: a year
is 3e7 s, a large disk 1e14 bytes, a step's time per pair of tokens 1e-12 s.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

LARGEST, SMALLEST, LARGEST_WHOLE = 1e15, 1e-15, 2**63 - 1


def size_problem(value: float, *, whole: bool, endless: bool) -> str | None:
    """Return what is wrong with the size of `value`; None if it may be used. `endless`: infinity means something."""
    if value == math.inf and endless:
        return None
    size, most = abs(value), LARGEST_WHOLE if whole else LARGEST
    if size > most:
        return f"is too large; at most {most:g} is allowed"
    if not whole and 0 < size < SMALLEST:
        return f"is too close to 0; write 0, or at least {SMALLEST:g}"
    return None


@lru_cache(maxsize=256)
def endless_keys(make: Callable[..., Any]) -> frozenset[str]:
    """Return the keys of `make` that may be infinite: those whose default is, such as the duration of a fault."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(make).parameters.items()}
    return frozenset(
        name
        for name, default in defaults.items()
        if math.inf in (default if isinstance(default, tuple) else (default,))
    )
