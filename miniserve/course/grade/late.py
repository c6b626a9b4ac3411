"""Late work: what a notebook loses that came after its time, by one rule that the instructor states in a file.

[late]
due = 2026-03-01T23:59:00+01:00     # or one for each chapter: due = {6 = ..., 12 = ...}
percent_per_day = 10                # of the chapter's points, for each day that has begun
most_percent = 50                   # 100 if it isn't there
grace_minutes = 10                  # 0 if it isn't there
times = "handed_in.csv"             # learner, chapter (optional), time: instead of the files' own times
excused = ["ann", "bob/6"]
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from miniserve.course.grade.spreadsheet import read_spreadsheet, unquoted
from miniserve.errors import SetupError

DAY_S = 86_400.0
_KEYS = {"due", "percent_per_day", "most_percent", "grace_minutes", "times", "excused"}


@dataclass(frozen=True, slots=True)
class Lateness:
    """How late one notebook was, and the share of its points that this costs."""

    days: int  # begun
    share: float
    due: datetime
    handed_in: datetime

    def sentence(self) -> str:
        """Return what a learner reads."""
        came = self.handed_in.strftime("%Y-%m-%d %H:%M UTC")
        return f"It came on {came}, in the {_ordinal(self.days)} day after it was due: {self.share:.0%} off."


@dataclass(frozen=True, slots=True)
class LateRule:
    """The rule, and the times that it is applied to. Chapter 0 stands for every chapter."""

    due: Mapping[int, datetime]
    percent_per_day: float
    most_percent: float = 100.0
    grace_s: float = 0.0
    times: Mapping[tuple[str, int], datetime] = field(default_factory=dict)
    excused: frozenset[str] = frozenset()

    def lateness(self, learner: str, chapter: int, file_time_s: float) -> Lateness | None:
        """Return how late a notebook is; None if it is in time, excused, or due at no time."""
        due = self.due.get(chapter, self.due.get(0))
        if due is None or {learner, f"{learner}/{chapter}"} & self.excused:
            return None
        given = self.times.get((learner, chapter), self.times.get((learner, 0)))
        handed_in = given if given is not None else datetime.fromtimestamp(file_time_s, UTC)
        late_s = (handed_in - due).total_seconds()
        if late_s <= self.grace_s:
            return None
        days = math.ceil(late_s / DAY_S)
        return Lateness(days, min(days * self.percent_per_day, self.most_percent) / 100, due, handed_in.astimezone(UTC))

    def sentence(self) -> str:
        """Return the rule in words."""
        grace = f", after {self.grace_s / 60:g} minutes of grace" if self.grace_s else ""
        most = f", at most {self.most_percent:g} %" if self.most_percent < 100 else ""
        whose = "the times in the given table" if self.times else "the files' own times"
        per_day = f"{self.percent_per_day:g} % of a chapter's points for each day begun"
        return f"Late work loses {per_day}{most}{grace}, by {whose}."

    @property
    def named(self) -> set[str]:
        """The learners whom the rule names: a name that nobody has is a mistake."""
        return {learner for learner, _ in self.times} | {name.partition("/")[0] for name in self.excused}


def read_late_rule(path: Path | None) -> LateRule | None:
    """Read the rule. Raises: SetupError naming the key that is wrong."""
    if path is None:
        return None
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8-sig")).get("late")
    except FileNotFoundError:
        raise SetupError(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise SetupError(f"{path}: {error}") from None
    if not isinstance(told, dict) or "due" not in told or "percent_per_day" not in told:
        raise SetupError(f"{path}: it needs a table [late] with due and percent_per_day")
    if unknown := sorted(told.keys() - _KEYS):
        raise SetupError(f"{path}: unknown key {unknown[0]!r} in [late]; there are {', '.join(sorted(_KEYS))}")
    due = told["due"] if isinstance(told["due"], dict) else {"0": told["due"]}
    if bad := [key for key in due if not key.isdigit()]:
        raise SetupError(f"{path}: due = {{{bad[0]} = ...}} names no chapter; write its number")
    excused = told.get("excused", [])
    if not isinstance(excused, list) or not all(isinstance(name, str) for name in excused):
        raise SetupError(f'{path}: excused is {excused!r}; it should be a list such as ["ann", "bob/6"]')
    return LateRule(
        {int(key): _moment(path, value) for key, value in due.items()},
        _number(path, told, "percent_per_day", math.nan, 100),
        _number(path, told, "most_percent", 100.0, 100),
        60 * _number(path, told, "grace_minutes", 0.0, math.inf),
        _times(path.parent / told["times"]) if told.get("times") else {},
        frozenset(excused),
    )


def _number(path: Path, told: Mapping[str, Any], key: str, default: float, most: float) -> float:
    value = told.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most or math.isinf(value):
        limit = f"from 0 to {most:g}" if math.isfinite(most) else "0 or more"
        raise SetupError(f"{path}: {key} is {value!r}; it should be a number, {limit}")
    return float(value)


def _moment(path: Path, value: object) -> datetime:
    """Return a moment in time; one without a zone is in this machine's."""
    if isinstance(value, datetime):
        return value.astimezone()
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, 23, 59, 59).astimezone()  # the whole day still counts
    raise SetupError(f"{path}: the time that is due is {value!r}; it should be such as 2026-03-01T23:59:00+01:00")


def _times(path: Path) -> dict[tuple[str, int], datetime]:
    times = {}
    for line, row in read_spreadsheet(path):
        chapter = row.get("chapter", "").strip() or "0"
        try:
            times[unquoted(row["learner"]), int(chapter)] = datetime.fromisoformat(row["time"].strip()).astimezone()
        except (KeyError, ValueError) as error:
            why = f"{error}; it needs learner, time (2026-03-01T23:59+01:00) and perhaps chapter"
            raise SetupError(f"{path}, line {line}: {why}") from None
    return times


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
