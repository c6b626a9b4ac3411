"""Every step of an engine as a line of JSON, for whoever wants to know afterwards what a live replica did.

Written by the engine's thread after each step (about 20 us). Times are the machine's monotonic clock, so they can be
compared between processes of one machine. Knows no torch: a reader needs none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from miniserve.errors import SetupError

if TYPE_CHECKING:
    from miniserve.engine.engine import StepRecord


@dataclass(frozen=True, slots=True)
class LoggedStep:
    """The part of a `StepRecord` that says how long a step took, and with what work."""

    start_s: float
    seconds: float
    decode_rows: int
    prefill_tokens: int
    context_tokens: int
    prefill_pairs: int
    running: int  # when it had ended
    waiting: int


@contextmanager
def step_log(path: Path) -> Iterator[Callable[[StepRecord], None]]:
    """Yield what to call with each step; it is written at once. Raises: SetupError if it cannot be."""
    try:
        file = path.open("a", encoding="utf-8", buffering=1)  # by lines
    except OSError as error:
        raise SetupError(f"{path} cannot be written: {error}") from None
    with file:
        yield lambda step: print(json.dumps(asdict(step)), file=file)


def read_steps(path: Path, skip: int = 0) -> list[LoggedStep]:
    """Return the steps of a log, but for the first `skip`."""
    names = [field.name for field in fields(LoggedStep)]
    with path.open(encoding="utf-8") as file:
        steps = [json.loads(line) for line in file][skip:]
    return [LoggedStep(*(step[name] for name in names)) for step in steps]
