"""What happens at a set time, and what happens again and again: before everything else of its instant.

Ties are ordered by a rule, not by luck, and by the same one in both worlds (`live.virtual_time`). At one instant come
first the timers of this module: control loops, then what is the fleet's own (faults, stages of a cold start, probes),
each in the order in which they were set; then arrivals and whatever else simpy schedules; then the replicas take their
turns (`sim.replica`). So a request that arrives at the very time of an autoscaler's tick meets the fleet as the tick
left it.

Times are added up one period after the other, `t + dt + dt`, as an asyncio loop that sleeps does.
"""

from __future__ import annotations

from collections.abc import Callable

import simpy
from simpy.events import URGENT, EventPriority

CONTROL, FLEET = EventPriority(-1), URGENT  # URGENT: simpy's own for what precedes the normal events


def after(env: simpy.Environment, seconds: float, call: Callable[[], object], priority: EventPriority = FLEET) -> None:
    """Call `call` in `seconds`, before all else at that time."""

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
    """Call `tick(now_s)` after each period; return what stops it. Raises: ValueError unless the period is positive."""
    if not period_s > 0:
        raise ValueError(f"a period of {period_s} s never ends; it must be positive")
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
