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
import sys
import sysconfig
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

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
    """Return whether an answer is still the placeholder `...`, or a list or dictionary of nothing else."""
    inside = list(answer.values()) if isinstance(answer, dict) else answer
    return answer is ... or (isinstance(inside, tuple | list) and bool(inside) and all(item is ... for item in inside))


def plain(value: Any) -> Json:
    """Return `value` as plain JSON values; numpy's numbers and arrays become Python's.

    Raises: NotPlain for any other type, for NaN and infinity, and for nesting deeper than 20 levels.
    """
    return _plain(value, 20)


def _plain(value: Any, depth: int, place: str = "") -> Json:
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
        what = ", place" if place else "row" if any(type(item) in (list, tuple) for item in value) else "place"
        return [_plain(item, depth - 1, f"{place}{what} {i}") for i, item in enumerate(value, 1)]
    if type(value) is dict:
        return {
            _key(key): _plain(item, depth - 1, f"{place or 'item'} {str(key)[:40]!r}") for key, item in value.items()
        }
    if value is ...:
        raise NotPlain(f"it holds `...`, a place not filled in yet{f' ({place})' if place else ''}")
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
    except TimeUp as up:
        return Told(error=f"TimeUp: it was still running after {limit_s:g} s{up}")
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
    own = [frame for frame in frames if _is_learners(frame.filename)]
    return (own[-1].line or "") if own else ""


class TimeUp(BaseException):
    """The answer's time is over; a BaseException, so that `except Exception` does not swallow it."""


SWALLOWED = ", and caught the signal that should have stopped it"
_LAST_WORDS = """
Your code catches every exception, even the one that ends it when its time is over.
Choose Kernel > Restart, then write `except Exception:` in place of a bare `except:`.
"""


@contextmanager
def limited(limit_s: float) -> Iterator[None]:
    """Raise TimeUp in this thread after `limit_s`; do nothing where there is no alarm (Windows, other threads).

    A bare `except:` in a loop swallows that. From the second ring on we therefore ring in quick succession, and raise
    at a line that the learner's code is about to run as well: in the handler, where no `try` protects the loop.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return
    outside, traced_by, rings, skip = sys._getframe(2), sys.gettrace(), 0, 0

    def ring(_: int, frame: FrameType | None) -> None:
        nonlocal rings, skip
        rings += 1
        own = _own_frames(frame, outside) if rings > 1 else []
        if rings == 1:
            raise TimeUp
        if rings == 1000:
            print(_LAST_WORDS, file=sys.__stderr__)
        if own:
            skip = rings % 3  # the next lines may still belong to a `finally:`
            sys.settrace(at_a_line)
            for one in own:
                one.f_trace = at_a_line
            again()

    def at_a_line(frame: FrameType, event: str, _: object) -> Any:
        nonlocal skip
        if not _is_learners(frame.f_code.co_filename):
            return None
        if event == "line":
            skip -= 1
            if skip < 0:
                again()  # which ends the tracing
        return at_a_line

    def again() -> NoReturn:
        signal.setitimer(signal.ITIMER_REAL, 1e-5 * 2 ** (rings % 10), 0.2)  # an outer `except:` may swallow this one
        raise TimeUp(SWALLOWED)

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, limit_s, 0.2)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if rings > 1:
            sys.settrace(traced_by)


def _own_frames(frame: FrameType | None, outside: FrameType) -> list[FrameType]:
    """Return the frames of the learner's code that are running, from `frame` out to where our own call stands."""
    own = []
    while frame is not None and frame is not outside:
        if _is_learners(frame.f_code.co_filename):
            own.append(frame)
        frame = frame.f_back
    return own


def _is_learners(filename: str) -> bool:
    return not filename.startswith(_NOT_THE_LEARNERS)


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
