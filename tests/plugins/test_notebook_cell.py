"""A policy out of a notebook: the answer cell alone counts, and whatever is wrong with it is one line."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import pytest

from miniserve.__main__ import main
from miniserve.errors import SetupError
from miniserve.plugins.load import load_object
from miniserve.policies.routing.balancer import Balancer
from miniserve.types import ReplicaView, Request

GOOD = """from collections.abc import Sequence

FAVOURITE = "r1"


class Mine:
    def choose(self, request: object, replicas: Sequence[object]) -> str:
        return FAVOURITE


print("not executed", Mine().choose(no_such_name, ()))
"""
BAD = "class Mine:\n    def choose(self, request, replicas):\n        "


def notebook(folder: Path, text: str, **cell: object) -> str:
    answer = {"cell_type": "code", "id": "answer-12-1", "metadata": {"tags": ["answer"]}, "source": text, **cell}
    other = {"cell_type": "code", "id": "x", "metadata": {}, "source": ["class Decoy:\n", "    pass\n", "1 / 0"]}
    (folder / "12_mine.ipynb").write_text(json.dumps({"cells": [other, answer], "metadata": {}}))
    return f"{folder}/12_mine.ipynb:Mine"


def test_the_class_of_the_answer_cell_decides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = load_object(notebook(tmp_path, GOOD), Balancer)

    assert made.choose(Request("q", "m", (1,)), (ReplicaView("r0"), ReplicaView("r1"))) == "r1"
    assert "class Mine" in inspect.getsource(type(made))
    assert capsys.readouterr().out == ""


def test_lines_may_be_a_list(tmp_path: Path) -> None:
    assert load_object(notebook(tmp_path, "", source=GOOD.splitlines(keepends=True)), Balancer).choose(None, ()) == "r1"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            BAD + 'raise NotImplementedError("Exercise 12.1")\n',
            r"\[answer-12-1\]:3: Mine is not written yet: raise Not",
        ),
        (
            "class Other: pass\n",
            r"12_mine\.ipynb: no answer cell defines the class Mine; its answer cells define Other",
        ),
        ("x = ...\n", r"no answer cell defines the class Mine; they define no class"),
        ("import no_such_module\n" + GOOD, r"\[answer-12-1\]:1: the cell does not run: ModuleNotFoundError: No module"),
        (BAD + "return " + "-" * 100_000 + "1\n", r"\[answer-12-1\]:1: the cell does not run: (Memory|Recursion)Error"),
        (BAD + "return '\0'\n", r"\[answer-12-1\]:1: the cell does not run: SyntaxError: .*null bytes"),
        (BAD + "return (\n", r"\[answer-12-1\]:3: the cell does not run: SyntaxError: "),
        ("class Mine:\n    pass\n", r"\[answer-12-1\]:1: Mine lacks the method choose\(request, replicas\)"),
        (BAD + "pass\n    def __init__(self): 1 / 0\n", r"\[answer-12-1\]:4: Mine\(\) failed: ZeroDivisionError"),
    ],
)
def test_each_thing_wrong_is_one_line(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(SetupError) as caught:
        load_object(notebook(tmp_path, text), Balancer)
    assert re.search(problem, str(caught.value))
    assert "\n" not in str(caught.value)


def test_only_an_answer_cell_counts(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="no answer cell defines the class Mine"):
        load_object(notebook(tmp_path, GOOD, metadata={"tags": ["check"]}), Balancer)


@pytest.mark.parametrize(
    "text", ["not json", "[]", '{"cells": 3}', '{"cells": [3]}', '{"worksheets": []}', "[" * 100_000, '{"a":' * 100_000]
)
def test_what_is_no_notebook_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.ipynb").write_text(text)

    with pytest.raises(SetupError, match=r"bad\.ipynb cannot be read as a notebook: "):
        load_object(f"{tmp_path}/bad.ipynb:Mine", Balancer)


def test_a_simulation_runs_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = notebook(tmp_path, GOOD.replace("r1", "cpu-1"))

    assert main(["simulate", "data/scenarios/quickstart.toml", "--balancer", mine, "--requests", "50"]) == 0
    assert "goodput" in capsys.readouterr().out


def test_a_stub_does_not_start_a_simulation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = notebook(tmp_path, BAD + "raise NotImplementedError('Exercise 12.1: write the body')")

    assert main(["simulate", "data/scenarios/quickstart.toml", "--balancer", mine]) == 2
    assert "Mine is not written yet" in capsys.readouterr().err
