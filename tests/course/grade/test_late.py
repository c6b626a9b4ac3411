"""Late work loses what the instructor's rule says, and no more."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from miniserve.course.grade.late import Lateness, LateRule, read_late_rule
from miniserve.errors import SetupError

DUE = "2026-03-01T12:00:00+00:00"
RULE = f"[late]\ndue = {DUE}\npercent_per_day = 10\n"
DUE_S = datetime.fromisoformat(DUE).timestamp()
DAY_S = 86_400


def rule(tmp_path: Path, text: str) -> LateRule:
    (tmp_path / "late.toml").write_text(text)
    found = read_late_rule(tmp_path / "late.toml")
    assert found is not None
    return found


def share(late: Lateness | None) -> float:
    return late.share if late is not None else 0.0


@pytest.mark.parametrize(
    ("late_s", "lost"),
    [(-5, 0), (0, 0), (1, 0.1), (DAY_S, 0.1), (DAY_S + 1, 0.2), (9 * DAY_S + 1, 1.0), (99 * DAY_S, 1.0)],
)
def test_each_day_begun_costs_its_share(late_s: float, lost: float, tmp_path: Path) -> None:
    assert share(rule(tmp_path, RULE).lateness("ann", 6, DUE_S + late_s)) == pytest.approx(lost)


def test_grace_and_the_most(tmp_path: Path) -> None:
    found = rule(tmp_path, f"{RULE}grace_minutes = 10\nmost_percent = 25\n")

    assert found.lateness("ann", 6, DUE_S + 600) is None
    assert share(found.lateness("ann", 6, DUE_S + 601)) == pytest.approx(0.1)
    assert share(found.lateness("ann", 6, DUE_S + 5 * DAY_S)) == pytest.approx(0.25)
    assert found.sentence() == (
        "Late work loses 10 % of a chapter's points for each day begun, at most 25 %, after 10 minutes of grace, "
        "by the files' own times."
    )


def test_each_chapter_has_its_day_and_some_have_none(tmp_path: Path) -> None:
    found = rule(tmp_path, f"[late]\npercent_per_day = 10\ndue = {{6 = {DUE}, 7 = 2026-04-01}}\n")

    assert found.lateness("ann", 6, DUE_S + 60) is not None
    assert found.lateness("ann", 7, DUE_S + 60) is None
    assert found.lateness("ann", 12, DUE_S + 99 * DAY_S) is None


def test_a_table_of_times_counts_before_the_files_own(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(
        "learner,chapter,time\nann,,2026-03-01T11:00:00+00:00\nbob,6,2026-03-03 12:30:00+00:00\n"
    )
    found = rule(tmp_path, f'{RULE}times = "in.csv"\n')

    assert found.lateness("ann", 6, DUE_S + 5 * DAY_S) is None
    assert share(found.lateness("bob", 6, DUE_S - 5)) == pytest.approx(0.3)
    assert found.lateness("bob", 7, DUE_S - 5) is None
    assert share(found.lateness("cem", 6, DUE_S + 5)) == pytest.approx(0.1)
    assert found.named == {"ann", "bob"}


def test_an_excuse_covers_a_learner_or_one_chapter(tmp_path: Path) -> None:
    found = rule(tmp_path, f'{RULE}excused = ["ann", "bob/6"]\n')

    assert found.lateness("ann", 7, DUE_S + 9) is None
    assert found.lateness("bob", 6, DUE_S + 9) is None
    assert found.lateness("bob", 7, DUE_S + 9) is not None


def test_a_learner_reads_when_it_came_and_what_it_costs(tmp_path: Path) -> None:
    late = rule(tmp_path, RULE).lateness("ann", 6, DUE_S + DAY_S + 60)

    assert late is not None
    assert late.sentence() == "It came on 2026-03-02 12:01 UTC, in the 2nd day after it was due: 20% off."


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[late", "late.toml"),
        ("x = 1", "a table"),
        ("[late]\npercent_per_day = 10", "due"),
        (f"{RULE}mercy = 1", "unknown key 'mercy'"),
        (RULE.replace("10", "-1"), "percent_per_day"),
        (RULE.replace("= 10", "= 101"), "from 0 to 100"),
        (RULE.replace("= 10", "= true"), "percent_per_day"),
        (RULE.replace(DUE, '"tomorrow"'), "the time that is due"),
        (f"[late]\npercent_per_day = 1\ndue = {{six = {DUE}}}", "names no chapter"),
        (f'{RULE}excused = "ann"', "excused"),
        (f"{RULE}grace_minutes = inf", "grace_minutes"),
        (f'{RULE}times = "nowhere.csv"', "does not exist"),
    ],
)
def test_a_rule_that_means_nothing_is_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=said):
        rule(tmp_path, text)


@pytest.mark.parametrize("row", ["ann,6,yesterday", "ann,six,2026-03-01", "ann"])
def test_a_time_that_is_none_is_refused_with_its_line(row: str, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(f"learner,chapter,time\n{row}\n")
    with pytest.raises(SetupError, match="line 2"):
        rule(tmp_path, f'{RULE}times = "in.csv"\n')
