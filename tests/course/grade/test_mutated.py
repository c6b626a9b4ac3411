"""Whatever is handed in, a grading ends, names every file, and the honest learner's marks stay."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from course.grade import mutated, toy

from miniserve.course.grade.books import Order
from miniserve.course.grade.folder import NO_GRADING, grade
from miniserve.course.grade.trusted import Limits

_LIMITS = Limits(cell_s=10, notebook_s=60)


def grade_mutated(count: int, seed: int, tmp_path: Path, chapters: Path) -> None:
    """Grade `count` random notebooks beside an honest one, and check what no notebook may change."""
    rng, folder = Random(seed), tmp_path / "in"
    honest = mutated.right(chapters)
    toy.hand_in(folder, "honest", honest)
    handed = [mutated.hand_in(folder, f"m{i:03}", mutated.mutate(honest, rng), rng) for i in range(count)]
    order = Order(folder, sandbox=toy.sandbox(), course_folder=chapters, package=toy.PACKAGE, limits=_LIMITS, jobs=2)
    graded, code = grade(order, tmp_path / "out")

    named = {sheet.handed.file for sheet in graded.sheets} | {file.path for file in graded.files}
    assert set(handed) <= named
    assert code != NO_GRADING, [sheet.broken for sheet in graded.sheets if sheet.broken]
    assert graded.points("honest") == 4
    rows = list(csv.DictReader((tmp_path / "out/grades.csv").read_text(encoding="utf-8").splitlines()))
    assert {row["learner"] for row in rows} == {"honest", *(path.partition("/")[0] for path in handed)}
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert all(learner in page for learner in graded.learners)


def test_a_grading_of_mutated_notebooks_ends_with_every_file_named(tmp_path: Path, chapters: Path) -> None:
    grade_mutated(6, 1, tmp_path, chapters)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(2, 8))
def test_many_mutated_notebooks_end_no_grading(
    seed: int, tmp_path: Path, chapters: Path, record_property: Callable[[str, object], None]
) -> None:
    grade_mutated(50, seed, tmp_path, chapters)
    record_property("notebooks", 50)
