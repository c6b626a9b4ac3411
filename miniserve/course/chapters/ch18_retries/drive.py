"""Lets a client's loop try one request by a script, and logs everything it does. Contains no answers.

Only tries and sleeping move the clock. This module's text goes to where the answer is (`course/grade/tell.py`).
"""

from __future__ import annotations

from collections.abc import Callable

from miniserve.clients.retry_loop import Try
from miniserve.course.check.ask import Json
from miniserve.errors import InvalidRequest, Overloaded

ERRORS = {"busy": Overloaded, "wrong": InvalidRequest}


def drive_persist(answer: Json, asked: Json) -> Json:
    """Let the loop try one request by the script; return the log of all that happened, and the result."""
    script = Script(asked)
    settings = {key: asked[key] for key in ("deadline_s", "resume") if key in asked}
    running = answer(script.send, script.sleep, lambda: script.now_s, script, script, **settings)
    return {"log": script.log, "result": _result(running)}


def _result(running: Json) -> Json:
    """Run the coroutine to its end: everything it may await is done at once."""
    if not hasattr(running, "send") or not hasattr(running, "close"):
        return {"type": f"{type(running).__name__}, not a coroutine"}
    try:
        running.send(None)
        running.close()
        return {"type": "other await"}
    except StopIteration as end:
        value = end.value
    if not hasattr(value, "words") or not hasattr(value, "error"):
        return {"type": type(value).__name__}
    return {"words": list(value.words), "error": type(value.error).__name__ if value.error else None}


class Script:
    """Service, clock, policy and budget in one: each answers by the script and writes down what it was asked."""

    def __init__(self, asked: Json) -> None:
        self.log: list[Json] = []
        self.now_s = asked["starts_s"]
        self._try_s = asked["try_s"]
        self._tries, self._waits, self._grants = (iter(asked[name]) for name in ("tries", "waits", "grants"))

    def send(self, words: Json) -> Done:
        def act() -> Json:
            self.log.append(["send", list(words)])
            self.now_s += self._try_s
            one = next(self._tries, None)
            if one is None:
                raise RuntimeError("one try too many")
            return Try(tuple(one["words"]), ERRORS[one["error"]]("failed") if one["error"] else None)

        return Done(act)

    def sleep(self, seconds: Json) -> Done:
        def act() -> None:
            self.log.append(["sleep", seconds])
            self.now_s += seconds

        return Done(act)

    def delay_s(self, attempt: int, error: Json, now_s: float, deadline_s: Json) -> Json:
        self.log.append(["delay", attempt, type(error).__name__, now_s, deadline_s])
        return next(self._waits, None)

    def deposit(self, now_s: float) -> None:
        self.log.append(["deposit", now_s])

    def withdraw(self, now_s: float) -> bool:
        self.log.append(["withdraw", now_s])
        return bool(next(self._grants, False))

    def record(self, ok: bool, now_s: float) -> None:
        self.log.append(["record", bool(ok), now_s])


class Done:
    """An awaitable that acts when it is awaited, and is done at once."""

    def __init__(self, act: Callable[[], Json]) -> None:
        self._act = act

    def __await__(self):  # type: ignore[no-untyped-def]
        return self._act()
        yield
