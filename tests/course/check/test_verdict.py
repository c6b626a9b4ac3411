"""What a learner reads: at most eight lines, printable, and in place of a traceback."""

from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

from miniserve.course.check.verdict import MAX_LINES, WIDTH, NotCorrect, Problem, Status, Verdict

texts = st.text(max_size=2000)


@given(texts, texts, texts, texts)
def test_a_verdict_has_at_most_eight_lines_whatever_was_answered(what, why, next_, where):
    verdict = Verdict("6.1", Status.WRONG, Problem("off", what, why, next_, where), note="layer 2 of 5; seed 17")
    lines = "\n".join(verdict.lines()).splitlines()
    assert len(lines) <= MAX_LINES
    assert all(len(line) <= WIDTH and line.isprintable() for line in lines)
    "\n".join(lines).encode()


def test_a_short_problem_is_told_in_full_and_in_order():
    problem = Problem("mean", "0.8 s", "This is the mean.", "Sort the values.", "n=100")
    assert Verdict("6.1", Status.WRONG, problem).lines() == [
        "6.1  WRONG",
        "  Seen:  0.8 s",
        "  Where: n=100",
        "  Why:   This is the mean.",
        "  Next:  Sort the values.",
    ]


def test_what_does_not_fit_ends_in_an_ellipsis_and_leaves_the_rest_whole():
    lines = Problem("off", "seen", "long " * 400, "look here", "row 1").lines()
    assert len(lines) == MAX_LINES - 1
    assert lines[0] == "  Seen:  seen"
    assert lines[-1] == "  Next:  look here"
    assert lines[-2].endswith("…")


def test_terminal_codes_and_broken_characters_of_an_answer_are_shown_as_escapes():
    (line,) = Problem("off", "\x1b[31mred\ud800", "").lines()
    assert line == r"  Seen:  \x1b[31mred\ud800"


def test_states_are_words():
    assert Verdict("6.1", Status.CORRECT).lines() == ["6.1  CORRECT"]
    assert Verdict("6.1", Status.NOT_TRIED).lines() == ["6.1  NOT TRIED"]


def test_ipython_shows_the_lines_and_no_traceback(capsys):
    verdict = Verdict("6.1", Status.WRONG, Problem("mean", "0.8 s", "This is the mean."))
    shell = InteractiveShell()
    shell.user_ns["error"] = NotCorrect(verdict)
    result = shell.run_cell("raise error")
    assert isinstance(result.error_in_exec, NotCorrect)
    shown = capsys.readouterr().out.strip().splitlines()
    assert shown == [line.strip() if i == 0 else line for i, line in enumerate(verdict.lines())]


def test_as_plain_text_the_exception_says_the_same():
    verdict = Verdict("6.1", Status.WRONG, Problem("mean", "0.8 s", "This is the mean."))
    assert str(NotCorrect(verdict)).splitlines() == verdict.lines()
