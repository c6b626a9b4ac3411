"""What a notebook holds in its hand: verdicts, hints, solutions, and who is learning."""

import textwrap

import pytest

from miniserve import course
from miniserve.course.check.chapter import LEARNER_FILE, Chapter, Misused
from miniserve.course.check.kinds import FreeText
from miniserve.course.check.numbers import Misconception, Number
from miniserve.course.check.verdict import NotCorrect, Status
from miniserve.course.notebook import solutions as answers

QUESTIONS = (
    Number(
        id="7.1",
        name="wait_s",
        title="A wait",
        hints=("the idea", "the formula", "with other numbers"),
        truth=lambda n: 2 * n,
        draw=lambda rng: {"n": rng.randrange(10, 10_000)},
        misconceptions=(Misconception("once", "You counted it once.", lambda n: n),),
    ),
    FreeText(id="7.2", name="why", title="Why", hints=("h",), rubric=("r",), model_answer="m", at_least_words=3),
)


@pytest.fixture
def ch():
    return Chapter(7, {question.id: question for question in QUESTIONS}, "ada")


def test_a_right_answer_prints_correct(ch, capsys):
    ch.check("7.1", 2 * ch.given("7.1")["n"])
    assert capsys.readouterr().out == "7.1  CORRECT\n"


def test_a_wrong_answer_raises_the_words(ch, capsys):
    with pytest.raises(NotCorrect, match="You counted it once"):
        ch.check("7.1", ch.given("7.1")["n"])
    assert not capsys.readouterr().out


def test_what_is_not_tried_prints_and_does_not_raise(ch, capsys):
    ch.check("7.1", ...)
    ch.check("7.2", ...)
    assert capsys.readouterr().out == (
        "7.1  NOT TRIED  fill in wait_s, and run its cell first\n7.2  NOT TRIED  fill in why, and run its cell first\n"
    )


def test_a_text_is_noted_for_a_person_to_read(ch, capsys):
    ch.check("7.2", "tails hide in averages")
    assert capsys.readouterr().out == "7.2  NOTED  a person will read it\n"
    with pytest.raises(NotCorrect, match="At least 3"):
        ch.check("7.2", "hm")


def test_hints_come_one_by_one_and_the_last_stays(ch, capsys):
    for _ in range(4):
        ch.hint("7.1")
    assert [line.partition(": ")[2] for line in capsys.readouterr().out.splitlines()] == [
        "the idea",
        "the formula",
        "with other numbers",
        "with other numbers",
    ]


def test_a_question_that_does_not_exist_is_named_with_those_that_do(ch):
    for ask in (ch.check, ch.verdict):
        with pytest.raises(KeyError, match=r"no question '7\.3'; it has 7\.1, 7\.2"):
            ask("7.3", 1)
    for ask in (ch.hint, ch.given, ch.solution):
        with pytest.raises(KeyError, match="it has"):
            ask("7.3")


def test_the_id_of_a_question_may_be_a_number(ch, capsys):
    ch.check(7.1, 2 * ch.given(7.1)["n"])
    ch.hint(7.1)
    assert [line[:14] for line in capsys.readouterr().out.splitlines()] == ["7.1  CORRECT", "Hint 1 of 3 fo"]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda ch: ch.check("7.1"), 'The answer is missing. Write ch.check("7.1", wait_s).'),
        (lambda ch: ch.check("7.10", 1), "Chapter 7 has no question '7.10'; it has 7.1, 7.2."),
        (lambda ch: ch.hint(7.3), "Chapter 7 has no question 7.3; it has 7.1, 7.2."),
    ],
)
def test_a_misused_call_gets_one_line_and_no_traceback(ch, call, said):
    with pytest.raises(Misused) as raised:
        call(ch)
    assert raised.value._render_traceback_() == [said]


def test_your_piece_is_given_only_when_it_is_right(ch, capsys):
    right = 2 * ch.given("7.1")["n"]
    assert ch.yours("7.1", right) == right
    assert ch.yours("7.1", ...) is None
    assert ch.yours("7.1", 1) is None
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        "7.1 is not tried yet",
        "7.1 is wrong",
    ]


def test_the_same_learner_is_asked_the_same_again(ch):
    assert ch.verdict("7.1", 5) == ch.verdict("7.1", 5)
    assert ch.verdict("7.1", 5, seed=9123).seed == 9123


SOURCE = """
# %% [markdown] id="intro"
# # Chapter 7

# %% id="answer-7.1" tags=["answer"] question="7.1"
given = 5
# SOLUTION
wait_s = 2 * given
# END SOLUTION
"""


@pytest.fixture
def repository(tmp_path, monkeypatch):
    (tmp_path / "solutions").mkdir()
    (tmp_path / "solutions" / "07_waits.py").write_text(textwrap.dedent(SOURCE).lstrip())
    monkeypatch.setattr(answers.solution_of, "__defaults__", (tmp_path,))
    return tmp_path


def test_no_solution_before_an_attempt(ch, repository, capsys):
    ch.check("7.1", ...)
    ch.solution("7.1")
    shown = capsys.readouterr().out
    assert "try it first" in shown
    assert "2 * given" not in shown


def test_the_solution_is_read_after_an_attempt(ch, repository, capsys):
    with pytest.raises(NotCorrect):
        ch.check("7.1", 1)
    ch.solution("7.1")
    shown = capsys.readouterr().out
    assert shown.endswith("wait_s = 2 * given\n")
    assert "solutions/07_waits.py:4" in shown
    assert "solutions/07_waits.ipynb" in shown


def test_without_the_repository_there_is_no_solution(ch, repository, capsys):
    (repository / "solutions" / "07_waits.py").unlink()
    with pytest.raises(NotCorrect):
        ch.check("7.1", 1)
    ch.solution("7.1")
    assert "has no solutions folder" in capsys.readouterr().out


def test_a_code_answers_solution_is_the_librarys_text(repository):
    (repository / "solutions" / "07_waits.py").write_text(
        '# %% id="answer-7.1" tags=["answer"] question="7.1" target="lib.py::double"\n'
    )
    (repository / "lib.py").write_text("def double(n):\n    return 2 * n\n")
    found = answers.solution_of(7, "7.1", repository)
    assert (found.text, found.place) == ("def double(n):\n    return 2 * n", "lib.py")


def test_who_you_are_is_remembered_beside_the_notebooks(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert course.chapter(6).learner == ""
    course.set_learner("ada.lovelace-1815")
    assert LEARNER_FILE.read_text() == "ada.lovelace-1815\n"
    assert course.chapter(6).learner == "ada.lovelace-1815"
    assert "You are ada.lovelace-1815" in capsys.readouterr().out


@pytest.mark.parametrize("code", ["utf-8", "utf-8-sig", "utf-16"])
def test_who_you_are_does_not_hang_on_how_an_editor_saves_it(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    LEARNER_FILE.write_bytes("ada.lovelace\r\n".encode(code))

    assert course.chapter(6).learner == "ada.lovelace"
    assert course.chapter(6).given("6.6") == course.chapter(6, learner="ada.lovelace").given("6.6")


@pytest.mark.parametrize("odd", ["", " ", "a b", "../x", "-rf", ".hidden", "a/b", "ada\n", "é" * 3, "x" * 65])
def test_odd_names_are_refused(odd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="will not do"):
        course.set_learner(odd)
    assert not LEARNER_FILE.exists()


def test_a_chapter_opens_from_its_questions():
    ch = course.chapter(6, learner="ada")
    assert all(id_.startswith("6.") for id_ in ch._questions)
    assert all(ch.verdict(id_, ...).status is Status.NOT_TRIED for id_ in ch._questions)
