"""Timers, single and repeating, that fire before everything else at their instant.

Ties are ordered by a rule, not by chance, and the parity tests hold the live world to the same rule
(`tests/parity/virtual_time.py`). At one instant the timers of this module come first: control loops, then the fleet's
own timers (faults, stages of a cold start, probes), each in the order in which they were set; then arrivals and
whatever else simpy schedules; then the replicas take their turns (`sim.replica`). So a request that arrives at the very
time of an autoscaler's tick meets the fleet as the tick left it.

Times are added up period by period, `t + dt + dt`, as in an asyncio loop that sleeps.
"""

from __future__ import annotations

from collections.abc import Callable

import simpy
from simpy.events import URGENT, EventPriority

CONTROL, FLEET = EventPriority(-1), URGENT  # URGENT: simpy's own priority for what precedes normal events


def after(env: simpy.Environment, seconds: float, call: Callable[[], object], priority: EventPriority = FLEET) -> None:
    """Call `call` in `seconds`, before everything else at that time."""

    def wake(_: simpy.Event) -> None:
        call()

    event = simpy.Event(env)
    event.callbacks.append(wake)
    event._ok = True
    event._value = None
    env.schedule(event, priority, seconds)


def every(
    env: simpy.Environment, period_s: float, tick: Callable[[float], object], priority: EventPriority = FLEET
) -> Callable[[], None]:
    """Call `tick(now_s)` after each period; return a function that stops it. Raises: ValueError if `period_s` <= 0."""
    if not period_s > 0:
        raise ValueError(f"period_s ({period_s}) must be positive")
    going = True

    def once() -> None:
        if going:
            after(
                env, period_s, once, priority
            )  # first: a tick that stops the clock, or raises, leaves nothing odd behind
            tick(env.now)

    def stop() -> None:
        nonlocal going
        going = False

    after(env, period_s, once, priority)
    return stop


class Alarm(simpy.Event):
    """An event at an exact time, with a priority of its own."""

    def __init__(
        self,
        env: simpy.Environment,
        when_s: float,
        priority: EventPriority,
        callback: Callable[[simpy.Event], None],
    ) -> None:
        super().__init__(env)
        self.callbacks.append(callback)
        self._ok = True
        self._value = None
        env.schedule(self, priority, _Until(when_s))  # type: ignore[arg-type]  # all that simpy does is now + delay


class _Until:
    """A delay that gives an exact time when it is added to now. (No float need do that: rounding can step over it.)"""

    __slots__ = ("_when_s",)

    def __init__(self, when_s: float) -> None:
        self._when_s = when_s

    def __radd__(self, now_s: float) -> float:
        return self._when_s
