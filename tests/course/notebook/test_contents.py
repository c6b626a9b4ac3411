"""The list of exercises, what is solved, and the small experiments of the first page."""

from __future__ import annotations

from pathlib import Path

import pytest
from course.small_chapter import questions, write

from miniserve.course.chapters.start_here import lab
from miniserve.course.notebook import contents
from miniserve.course.notebook.contents import TITLES, progress
from miniserve.course.notebook.notebooks import dumps, loads


@pytest.fixture
def seven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chapter 7 has the two questions of the small chapter, and there is no other."""
    monkeypatch.setattr(contents, "_questions", lambda number: tuple(questions(7).values()) if number == 7 else ())


def check(text: str) -> dict[str, object]:
    output = {"output_type": "stream", "name": "stdout", "text": text}
    meta = {"tags": ["check"]}
    return {
        "cell_type": "code", "id": text[:3].replace(".", "-"), "metadata": meta, "source": "", "execution_count": 1,
        "outputs": [output],
    }  # fmt: skip


def test_there_are_twenty_in_order(seven: None, tmp_path: Path) -> None:
    rows = progress(tmp_path)

    assert [row.number for row in rows] == list(TITLES) == list(range(1, 21))
    assert rows[6].minutes == 10
    assert (rows[6].difficulty, rows[6].questions, rows[6].solved) == (2, 2, 0)
    assert rows[7].questions == 0


def test_what_is_solved_is_read_from_the_notebook_beside(seven: None, tmp_path: Path) -> None:
    notebook = {"cells": [check("7.1  CORRECT\n"), check("7.2  NOT TRIED\n")], "metadata": {}}
    (tmp_path / "07_mine.ipynb").write_text(dumps({**notebook, "nbformat": 4, "nbformat_minor": 5}))
    (tmp_path / "07_mine.old.ipynb").write_text("{")

    assert len(loads(tmp_path / "07_mine.ipynb")["cells"]) == 2
    assert progress(tmp_path)[6].solved == 1


def test_a_broken_notebook_counts_as_unsolved(seven: None, tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "07_mine.ipynb").write_text("{")

    assert progress(tmp_path)[6].solved == 0


def test_a_watched_engine_gives_the_same_tokens_and_names_each_step() -> None:
    asked = lab.request("A", range(40, 60), 5, to_the_end=True)
    engine = lab.small_engine(step_tokens=8)
    watched = lab.Watched(engine)
    tokens = engine.run([asked])["A"]

    assert tokens == lab.small_engine(step_tokens=8).run([asked])["A"]
    assert [(p.kind, p.tokens) for p in watched.pieces] == [("prefill", n) for n in (8, 8, 4)] + [("decode", 1)] * 4
    assert len(watched.owners[-1]["A"]) == 3


def test_drafts_of_the_same_model_are_all_kept() -> None:
    model = lab.small_engine()
    drafted = lab.draft_all(model, model, "hard", questions=4)

    assert drafted.accepted == drafted.drafted > 0
    assert drafted.large_steps < drafted.large_tokens


def test_a_draft_is_kept_up_to_the_first_difference() -> None:
    model = lab.small_engine()
    prompt = lab.tokenizer().encode_chat([{"role": "user", "content": "86 minus 25 = ?"}])
    answer = model.run([lab.request("A", prompt)])["A"]
    other = [*answer[:1], answer[1] + 1]

    assert lab.draft(model, prompt, answer, ahead=8) == lab.Drafted(len(answer), 1, len(answer), len(answer))
    assert lab.draft(model, prompt, other, ahead=1).accepted == 1
