"""Steps that last as long as a step-time model says: what makes a replica on a shared CPU behave like a machine.

Replicas on one laptop share its cores, so a third adds nothing to what two can do, and a killed one makes the others
faster. A paced replica runs the real model, scheduler and KV cache, and then waits until its step is over by the model.
So scaling out, a failure and a slow version change real capacity. Its speed is the model's, not the engine's: whoever
shows a figure of a paced replica says so.

A step that takes longer than its pace is counted (`EngineStats.overrun_steps`). Where these are many, the machine is
too busy for the figures to mean anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from miniserve.engine.stats import EngineStats
from miniserve.engine.step_time import StepTimeModel
from miniserve.errors import SetupError
from miniserve.replica.local import StepEngine
from miniserve.types import Clock, Request, TokenEvent

if TYPE_CHECKING:
    from miniserve.engine.engine import StepRecord

DEFAULT_PACE = StepTimeModel(0.025, 0.001, 0.0, 0.0, 0.0)  # a small GPU's decode step, slow enough for a busy laptop
TOO_MANY_OVERRUNS = 0.05  # a share of the steps; beyond it, figures of paced replicas mean nothing
_COEFFICIENTS = ("base_s", "per_decode_row_s", "per_prefill_token_s", "per_context_token_s", "per_prefill_pair_s")
_SAME_RUN_S = 0.010  # a step that begins so soon after the last one's end belongs to the same run of steps


class RecordingEngine(StepEngine, Protocol):
    """An engine that tells what each step did; `engine.Engine` is one."""

    on_step: Callable[[StepRecord], None] | None


class PacedEngine:
    """`engine` with steps of the length that `pace` says. Belongs to the engine's thread, which sleeps in `step`."""

    def __init__(
        self,
        engine: RecordingEngine,
        pace: StepTimeModel,
        clock: Clock,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._engine = engine
        self._pace = pace
        self._clock = clock
        self._sleep = sleep
        self._due_s = 0.0
        self._step: StepRecord | None = None
        self._steps = self._overruns = 0
        self._busy_s = 0.0
        self._also = engine.on_step
        engine.on_step = self._note

    @property
    def has_work(self) -> bool:
        return self._engine.has_work

    def add(self, request: Request) -> object:
        return self._engine.add(request)

    def abort(self, request_id: str) -> None:
        self._engine.abort(request_id)

    def step(self) -> list[TokenEvent]:
        """Run a step of the engine, and return its tokens when its time is over."""
        start_s = self._clock()
        if start_s - self._due_s <= _SAME_RUN_S:
            start_s = self._due_s  # what lies between two steps is not to be added to each, or the run drifts
        self._step = None
        events = self._engine.step()
        if self._step is not None:
            self._wait(start_s + self._pace.seconds(self._step))
            self._busy_s += self._due_s - start_s
        return events

    def stats(self) -> EngineStats:
        stats = self._engine.stats()
        return replace(stats, busy_s=self._busy_s, paced_steps=self._steps, overrun_steps=self._overruns)

    def _note(self, step: StepRecord) -> None:
        self._step = step
        if self._also is not None:
            self._also(step)

    def _wait(self, due_s: float) -> None:
        self._steps += 1
        left_s = due_s - self._clock()
        if left_s > 0:
            self._sleep(left_s)
            self._due_s = due_s
        else:
            self._overruns += 1
            self._due_s = self._clock()


def overrun_warning(reports: Iterable[EngineStats]) -> str:
    """Return what is to be said beside any figure of these replicas; "" where they keep their pace."""
    stats = list(reports)
    steps, overruns = sum(one.paced_steps for one in stats), sum(one.overrun_steps for one in stats)
    if overruns <= TOO_MANY_OVERRUNS * steps:
        return ""
    return (
        f"this machine is too busy for these figures: {overruns / steps:.0%} of the paced steps took longer than their "
        f"pace (at most {TOO_MANY_OVERRUNS:.0%})"
    )


def parse_pace(text: str) -> StepTimeModel:
    """Return the pace that `text` describes: "default", or coefficients as in "base_s=0.025,per_decode_row_s=0.001".

    Raises: SetupError, naming what is wrong and what is allowed.
    """
    if text == "default":
        return DEFAULT_PACE
    values = dict.fromkeys(_COEFFICIENTS, 0.0)
    for part in text.split(","):
        name, _, number = part.partition("=")
        if name not in values:
            raise SetupError(f"--pace {text}: there is no {name!r}; allowed: default, or any of {', '.join(values)}")
        try:
            values[name] = float(number)
        except ValueError:
            raise SetupError(f"--pace {text}: {name} must be seconds, not {number!r}") from None
        if not 0 <= values[name] <= 60:
            raise SetupError(f"--pace {text}: {name} must be between 0 and 60 seconds, not {number}")
    base_s, decode_row_s, prefill_token_s, context_token_s, prefill_pair_s = values.values()
    return StepTimeModel(base_s, decode_row_s, prefill_token_s, context_token_s, prefill_pair_s)
