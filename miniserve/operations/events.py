"""What has happened, in plain words: one log for the page, the status and the terminal.

An event is a sentence that a person understands who has not read the manual ("large@1-0 was killed; 7 streams went on
elsewhere"). Holds no prompt and no answer.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

log = logging.getLogger(__name__)

Level = Literal["info", "good", "warning", "alarm"]
KEPT = 1_000  # events; the oldest go first
_LOG_LEVELS = {"info": logging.INFO, "good": logging.INFO, "warning": logging.WARNING, "alarm": logging.ERROR}


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. `at_s`: seconds since 1970. `number`: 1, 2, ... without gaps."""

    number: int
    at_s: float
    kind: str  # who says it: replica, rollout, experiment, alert, load, person, ...
    text: str
    level: Level = "info"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class EventLog:
    """The last events, and who wants to hear of new ones."""

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._events: deque[Event] = deque(maxlen=KEPT)
        self._listeners: list[Callable[[Event], None]] = []
        self._last = 0

    def say(self, kind: str, text: str, level: Level = "info") -> Event:
        """Note an event, log it, and tell the listeners."""
        self._last += 1
        event = Event(self._last, self._wall_clock(), kind, text, level)
        self._events.append(event)
        log.log(_LOG_LEVELS[level], "%s: %s", kind, text)
        for listener in self._listeners:
            listener(event)
        return event

    def after(self, number: int = 0) -> list[Event]:
        """Return the kept events with a higher number, oldest first."""
        return [event for event in self._events if event.number > number]

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call `listener` with each new event, on the event loop."""
        self._listeners.append(listener)
