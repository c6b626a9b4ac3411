"""Stands between a check and an answer: the check asks in JSON, and gets JSON back.

A check never holds the learner's object. It asks (`Case.asked`), a *driver* beside the object carries that out and
reports the result, and the judge sees only the report. In a notebook this module calls the driver. Grading sends the
same driver's source into the learner's kernel and gets only JSON back: whatever the learner's code does to its own
process, the judge is elsewhere.

A driver is therefore a self-contained function `drive(answer, asked) -> told` that imports what it needs inside.
"""

from __future__ import annotations

import json
import math
import signal
import sysconfig
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any

Json = Any  # None, bool, int, float, str, list, dict of these
Drive = Callable[[Any, Json], Json]
_NOT_THE_LEARNERS = (
    str(Path(__file__).resolve().parents[2]),
    *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")),
    "<frozen",
)
_TOO_LARGE = 10**300  # beyond it, comparing with a float raises
LIMIT_S = 10.0  # for one question's code in a notebook; our checks take well under 2 s


@dataclass(frozen=True, slots=True)
class Told:
    """The result of asking: a value, or how the answer failed."""

    value: Json = None
    error: str = ""  # "ZeroDivisionError: division by zero"
    line: str = ""  # the learner's line that raised, as text

    @property
    def ok(self) -> bool:
        return not self.error


class NotPlain(Exception):
    """An answer holds something other than plain values."""


def is_blank(answer: Any) -> bool:
    """Return whether an answer is still the placeholder `...`, or a list of nothing else."""
    return answer is ... or (isinstance(answer, tuple | list) and bool(answer) and all(item is ... for item in answer))


def plain(value: Any) -> Json:
    """Return `value` as plain JSON values; numpy's numbers and arrays become Python's.

    Raises: NotPlain for any other type, for NaN and infinity, and for nesting deeper than 20 levels.
    """
    return _plain(value, 20)


def _plain(value: Any, depth: int) -> Json:
    if depth == 0:
        raise NotPlain("it is nested more than 20 levels deep")
    if type(value).__module__.partition(".")[0] == "numpy" and hasattr(value, "tolist"):
        value = value.tolist()
    if value is None or type(value) in (bool, str):
        return value
    if type(value) is int:
        if abs(value) > _TOO_LARGE:
            raise NotPlain("it holds an integer with more than 300 digits")
        return value
    if type(value) is float:
        if not math.isfinite(value):
            raise NotPlain(f"it holds {value}, which no check can compare")
        return value
    if type(value) in (list, tuple):
        return [_plain(item, depth - 1) for item in value]
    if type(value) is dict:
        return {_key(key): _plain(item, depth - 1) for key, item in value.items()}
    if value is ...:
        raise NotPlain("it holds `...`, a place not filled in yet")
    raise NotPlain(f"it holds a {type(value).__name__}; a check takes numbers, strings, lists and dictionaries")


def _key(key: Any) -> str:
    if type(key) in (str, int, float, bool):
        return str(key)
    raise NotPlain(f"it has a dictionary key of type {type(key).__name__}; use strings or numbers")


def ask(drive: Drive, answer: Any, asked: Json, limit_s: float = LIMIT_S) -> Told:
    """Let `drive` ask `answer`, in this process; nothing that the answer does raises."""
    asked = json.loads(json.dumps(asked))  # the answer may change its own copy only
    try:
        with limited(limit_s):
            return Told(plain(drive(answer, asked)))
    except NotPlain as error:
        return Told(error=f"NotPlain: {error}")
    except TimeUp:
        return Told(error=f"TimeUp: it was still running after {limit_s:g} s")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit, CancelledError, the answer's own
        return Told(error=f"{type(error).__name__}: {_message(error)}"[:300], line=_line(error))


def _message(error: BaseException) -> str:
    try:
        return " ".join(str(error).split())
    except Exception:
        return "(its message raises an error too)"


def _line(error: BaseException) -> str:
    """Return the last line of the learner's own code that an exception passed through: not numpy's, not ours."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(_NOT_THE_LEARNERS)]
    return (own[-1].line or "") if own else ""


class TimeUp(BaseException):
    """The answer's time is over; a BaseException, so that `except Exception` does not swallow it."""


@contextmanager
def limited(limit_s: float) -> Iterator[None]:
    """Raise TimeUp in this thread after `limit_s`; do nothing where there is no alarm (Windows, other threads)."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_: object) -> None:
        raise TimeUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, limit_s, 1.0)  # again every second: `except:` may swallow one
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def lent(pieces: Json) -> Iterator[None]:
    """Inside the block, give functions of the library the bodies in `pieces` (texts from `code.lend`).

    A kernel that is being graded has a package without the code that exercises ask for. An answer that builds on an
    earlier exercise borrows the library's version of that one while the check asks.
    """
    before: list[tuple[Any, Any]] = []
    try:
        for piece in pieces:
            module = import_module(piece["module"])
            made: dict[str, Any] = {}
            exec(f"from __future__ import annotations\n{piece['text']}", vars(module), made)
            function: Any = reduce(getattr, piece["name"].split("."), module)
            before.append((function, function.__code__))
            function.__code__ = made[function.__name__].__code__
        yield
    finally:
        for function, code in before:
            function.__code__ = code


# --- the usual drivers ---------------------------------------------------------------------------------------------


def drive_value(answer: Any, asked: Json) -> Json:
    """Return the answer, which is a value."""
    return answer


def drive_call(answer: Any, asked: Json) -> Json:
    """Call the answer, which is a function, with each set of keyword arguments."""
    return [answer(**arguments) for arguments in asked]
