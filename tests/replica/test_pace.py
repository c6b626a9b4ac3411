"""A paced replica's steps last as long as its step-time model says, and its tokens are the engine's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from miniserve.engine.engine import StepRecord
from miniserve.engine.stats import EngineStats
from miniserve.engine.step_time import StepTimeModel
from miniserve.errors import SetupError
from miniserve.replica.pace import DEFAULT_PACE, PacedEngine, overrun_warning, parse_pace
from miniserve.types import Request, TokenEvent

PACE = StepTimeModel(0.1, 0.01, 0.0, 0.0, 0.0)


class ScriptedEngine:
    """An engine whose steps take the seconds of a script, on a clock of its own."""

    def __init__(self, seconds: list[float], rows: int = 2) -> None:
        self.now_s = 100.0
        self.on_step: Callable[[StepRecord], None] | None = None
        self._seconds, self._rows = list(seconds), rows

    @property
    def has_work(self) -> bool:
        return bool(self._seconds)

    def add(self, request: Request) -> object:
        return request

    def abort(self, request_id: str) -> None: ...

    def step(self) -> list[TokenEvent]:
        if not self._seconds:
            return []
        start_s = self.now_s
        self.now_s += self._seconds.pop(0)
        record = StepRecord(start_s, self.now_s - start_s, self._rows, 0, self._rows, 0, 0, self._rows, 0, 0, 0, 0, 0)
        assert self.on_step is not None
        self.on_step(record)
        return [TokenEvent("a", (7,))]

    def stats(self) -> EngineStats:
        return EngineStats(tokens_per_s=3.0)

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def paced(engine: ScriptedEngine) -> PacedEngine:
    return PacedEngine(engine, PACE, engine.clock, engine.sleep)


def test_a_step_lasts_as_long_as_the_model_says() -> None:
    engine = ScriptedEngine([0.03])

    events = paced(engine).step()

    assert events == [TokenEvent("a", (7,))]
    assert engine.now_s == pytest.approx(100.12)


def test_the_time_between_two_steps_is_not_added_to_each() -> None:
    engine = ScriptedEngine([0.03] * 10)
    replica = paced(engine)

    while replica.has_work:
        replica.step()
        engine.now_s += 0.002  # what the thread does between steps

    assert engine.now_s == pytest.approx(100 + 10 * 0.12 + 0.002)


def test_after_a_rest_the_pace_begins_anew() -> None:
    engine = ScriptedEngine([0.03] * 2)
    replica = paced(engine)

    replica.step()
    engine.now_s += 5.0
    replica.step()

    assert engine.now_s == pytest.approx(100 + 0.12 + 5.0 + 0.12)


def test_steps_that_take_longer_than_their_pace_are_counted() -> None:
    engine = ScriptedEngine([0.03, 0.5, 0.03])
    replica = paced(engine)

    while replica.has_work:
        replica.step()

    stats = replica.stats()
    assert (stats.paced_steps, stats.overrun_steps) == (3, 1)
    assert stats.tokens_per_s == 3.0  # the engine's own
    assert stats.busy_s == pytest.approx(0.12 + 0.5 + 0.12)
    assert engine.now_s == pytest.approx(100 + 0.12 + 0.5 + 0.12)  # what was lost is not made up for


def test_a_step_without_work_is_not_paced() -> None:
    engine = ScriptedEngine([])
    replica = paced(engine)

    assert replica.step() == []
    assert engine.now_s == 100.0
    assert replica.stats().paced_steps == 0


def test_who_listened_to_the_engine_is_still_told() -> None:
    engine, seen = ScriptedEngine([0.03]), list[StepRecord]()
    engine.on_step = seen.append

    paced(engine).step()

    assert len(seen) == 1


def test_a_pace_is_read_from_the_command_line() -> None:
    assert parse_pace("default") is DEFAULT_PACE
    assert parse_pace("base_s=0.1,per_decode_row_s=0.01") == PACE


@pytest.mark.parametrize("text", ["", "fast", "base_s", "base_s=x", "base_s=-1", "base_s=nan", "base_s=1e9", "rows=1"])
def test_a_pace_that_is_none_is_refused_by_name(text: str) -> None:
    with pytest.raises(SetupError, match="--pace"):
        parse_pace(text)


def test_figures_of_replicas_that_cannot_keep_their_pace_come_with_a_warning() -> None:
    def stats(paced_steps: int, overrun_steps: int) -> EngineStats:
        return EngineStats(paced_steps=paced_steps, overrun_steps=overrun_steps)

    assert overrun_warning([]) == ""
    assert overrun_warning([EngineStats()]) == "", "not paced"
    assert overrun_warning([stats(100, 5), stats(100, 5)]) == ""
    assert "6% of the paced steps" in overrun_warning([stats(100, 12), stats(100, 0)])
