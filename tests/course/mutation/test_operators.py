"""Small mistakes made on purpose: each kind is made, nothing else is touched, and the score says what it should."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

from miniserve.__main__ import main
from miniserve.course.mutation import run as mutate
from miniserve.course.mutation.operators import Mutant, mutants
from miniserve.errors import SetupError

CASES = {
    "n + 1": {"n - 1", "n + 2", "n + 0"},
    "a < b": {"a <= b", "a > b"},
    "a == b": {"a != b"},
    "min(values)": {"max(values)"},
    "sorted(values)": {"list(values)"},
    "f(a, b)": {"f(b, a)"},
    'f("key", b)': set(),
    "f(a, key=b)": {"f(a)"},
    "not a": {"a"},
    "a and b": {"a or b", "a", "b"},
    "[x for x in values if x]": {"[x for x in values]"},
    "a if b else c": {"a if not b else c"},
    "values[1:]": {"values[2:]", "values[0:]", "values[:]"},
    "a // b % c": {"a * b % c", "a // b // c"},
}


def texts(body: str) -> set[str]:
    """Return what mutants make of the single line of a function's body."""
    made = mutants(f"def f(a, b, c, n, values):\n    return {body}\n")
    return {ast.unparse(ast.parse(mutant.text)).splitlines()[-1].strip().removeprefix("return ") for mutant in made}


@pytest.mark.parametrize("body", CASES)
def test_each_kind_of_mistake_is_made_once(body: str) -> None:
    assert texts(body) == CASES[body] | {"None"}, "and the result can be forgotten"


def test_statements_are_forgotten_locks_and_awaits_left_out_and_loops_ended_early() -> None:
    text = "async def f(lock, xs):\n    async with lock:\n        for x in xs:\n            await x.go()\n    log()\n"
    found = {(mutant.was, mutant.now) for mutant in mutants(text)}
    assert ("log()", "pass") in found
    assert ("await x.go()", "x.go()") in found
    assert ("", "break") in found
    assert any("async with lock:" in was and "async with" not in now for was, now in found)


def test_signatures_docstrings_texts_and_other_functions_are_left_alone() -> None:
    text = 'def f(n: int = 3) -> int:\n    """Return 3."""\n    raise ValueError("3 + 4")\n\n\ndef g():\n    return 5\n'
    assert [mutant.now for mutant in mutants(text, frozenset({"f"}))] == ["pass"]


def test_every_mutant_is_another_program_that_compiles() -> None:
    text = inspect.getsource(mutate.score_mutants)
    made = list(mutants(text, frozenset({"score_mutants"})))
    assert len({mutant.text for mutant in made}) == len(made) > 20
    for mutant in made:
        compile(mutant.text, "<mutant>", "exec")
        assert mutant.was != mutant.now


class Judge(mutate.Worker):
    """Takes an answer for right that returns at most 4 for 3."""

    def passes(self, question_id: str, text: str) -> bool:
        return mutate.answer_in(text, "f")(3) in (3, 4)


SOLUTION = mutate.SolvedText("9.9", "def f(n):\n    return n + 1\n", None)


def test_a_score_counts_what_was_noticed_and_what_was_not() -> None:
    result = mutate.score_mutants(Judge(), SOLUTION, {})
    assert (result.killed, [mutant.now for mutant in result.survivors]) == (3, ["return n + 0"])
    assert result.killed_fraction == 0.75
    assert not result.good
    assert any("survived: return n + 1  ->  return n + 0" in line for line in result.lines())


def test_a_declared_equivalent_is_no_mistake_and_a_stale_one_is_named() -> None:
    survivor, stale = ("return n + 1", "return n + 0"), ("return n", "return m")
    assert mutate.score_mutants(Judge(), SOLUTION, {survivor: "why"}).good
    result = mutate.score_mutants(Judge(), SOLUTION, {survivor: "why", stale: "why"})
    assert not result.good
    assert "return m" in result.unused[0]


def test_too_many_equivalents_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    few, many = mutate.Score("1.1", killed=18, equivalent=2), mutate.Score("1.1", killed=17, equivalent=3)
    assert mutate.few_equivalent([few])
    assert not mutate.few_equivalent([many])
    assert "3 of 20" in capsys.readouterr().out


def test_a_solution_that_does_not_pass_alone_has_no_score() -> None:
    with pytest.raises(SetupError, match="the solution itself"):
        mutate.score_mutants(Judge(), mutate.SolvedText("9.9", "def f(n):\n    return 9\n", None), {})


def test_an_equivalent_needs_a_reason(tmp_path: Path) -> None:
    file = tmp_path / "tests/course/bank/ch09/equivalent.toml"
    file.parent.mkdir(parents=True)
    file.write_text('[[equivalent]]\nquestion = "9.9"\nwas = "a"\nnow = "b"\nreason = " "\n')
    with pytest.raises(SetupError, match="'a' has no reason"):
        mutate.declared(9, tmp_path)


def test_the_command_names_a_chapter_without_a_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["course", "mutate", "99"]) == 2
    assert "99" in capsys.readouterr().err


def test_a_mutant_tells_its_lines() -> None:
    (mutant,) = mutants("def f():\n    log()\n")
    assert mutant == Mutant("def f():\n    pass", "log()", "pass")
