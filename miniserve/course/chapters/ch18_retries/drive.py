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
    result = _result(running)
    return {"log": script.log, "result": result, "changed_later": script.changed_later()}


def _number(value: Json) -> Json:
    """Return a number as it is; of anything else, its type."""
    return value if value is None or type(value) in (int, float) else {"type": type(value).__name__}


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
        self._sent: list[tuple[Json, list[str]]] = []  # what each try got, and what that held at the time
        self._try_s = asked["try_s"]
        self._tries, self._waits, self._grants = (iter(asked[name]) for name in ("tries", "waits", "grants"))

    def send(self, words: Json) -> Done:
        def act() -> Json:
            self._sent.append((words, list(words)))
            self.log.append(["send", list(words)])
            self.now_s += self._try_s
            one = next(self._tries, None)
            if one is None:
                raise RuntimeError("one try too many")
            return Try(tuple(one["words"]), ERRORS[one["error"]]("failed") if one["error"] else None)

        return Done(act)

    def sleep(self, seconds: Json) -> Done:
        def act() -> None:
            self.log.append(["sleep", _number(seconds)])
            self.now_s += seconds if type(seconds) in (int, float) else 0.0

        return Done(act)

    def delay_s(self, attempt: int, error: Json, now_s: float, deadline_s: Json) -> Json:
        name = type(error).__name__
        self.log.append(["delay", _number(attempt), name, _number(now_s), _number(deadline_s)])
        return next(self._waits, None)

    def deposit(self, now_s: float) -> None:
        self.log.append(["deposit", _number(now_s)])

    def withdraw(self, now_s: float) -> bool:
        self.log.append(["withdraw", _number(now_s)])
        return bool(next(self._grants, False))

    def record(self, ok: bool, now_s: float) -> None:
        self.log.append(["record", bool(ok), _number(now_s)])

    def changed_later(self) -> bool:
        """Return whether the loop changed an object that it had already handed to `send`."""
        return any(list(words) != then for words, then in self._sent)


class Done:
    """An awaitable that acts when it is awaited, and is done at once."""

    def __init__(self, act: Callable[[], Json]) -> None:
        self._act = act

    def __await__(self):  # type: ignore[no-untyped-def]
        return self._act()
        yield
