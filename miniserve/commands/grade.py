"""`miniserve grade DIR --out OUT`: grade the notebooks in a folder, and write the reports.

Exit code 0 if everything was graded, whatever the marks; 2 if a submission or a mark could not be used; 3 if grading
itself failed.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from miniserve.commands.options import at_least_one
from miniserve.errors import SetupError

if TYPE_CHECKING:
    from miniserve.course.grade.books import OnSheet, Order
    from miniserve.course.grade.graded import Graded
    from miniserve.course.grade.sheet import Sheet

_EXAMPLES = """\
examples:
  grade DIR --out OUT                               grade everything, and write report.html, grades.csv and the rest
  grade DIR --out OUT --marks OUT/free_text.csv     add the marks that you filled in; no notebook runs
  grade DIR --out OUT --regrade ann 6.3 bob/6.4     run a learner, a question or one answer again, and keep the rest
  grade DIR --out OUT --no-run --late late.toml     the reports once more, with a rule for late work

DIR holds a folder for each learner, files called LEARNER__anything.ipynb, or what Moodle, Canvas or Blackboard packed.
data/course/GRADING.md explains the states, the reports, the files that you write, and what the sandbox protects.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    parser.add_argument("folder", type=Path, metavar="DIR", help="DIR/<learner>/<chapter>.ipynb")
    parser.add_argument("--out", type=Path, required=True, metavar="OUT", help="where the reports go")
    add = parser.add_argument_group("what runs, and how").add_argument
    add("--chapters", type=int, nargs="+", default=[], metavar="NN", help="default: those handed in")
    add("--sandbox", choices=("auto", "bwrap", "none"), default="auto", help="none: only for code you trust")
    add("--seed", type=int, default=1, help="seed for drawing test cases (default %(default)s)")
    add("--jobs", type=at_least_one, default=1, metavar="N", help="notebooks graded in parallel (default 1)")
    what = "learners, questions or learner/question: run these again, keep the rest"
    add("--regrade", nargs="+", default=[], metavar="WHAT", help=what)
    add("--fresh", action="store_true", help="grade again what an earlier run into the same OUT has graded already")
    add("--no-run", action="store_true", help="make the reports again from OUT/results.json")
    add = parser.add_argument_group("files that you write").add_argument
    marks = "your marks, bonuses and comments, for any question; no notebook runs"
    add("--marks", type=Path, nargs="+", default=[], metavar="FILE", help=marks)
    add("--weights", type=Path, metavar="FILE", help="default: data/course/weights.toml")
    add("--roster", type=Path, metavar="FILE", help="who takes part; also makes canvas.csv and moodle.csv")
    add("--late", type=Path, metavar="FILE", help="when work is due, and what late work loses")
    add = parser.add_argument_group("another course than this one").add_argument
    add("--course", type=Path, metavar="DIR", help="its chapters")
    add("--questions", metavar="PACKAGE", help="its questions")


def run(args: argparse.Namespace) -> int:
    """Grade a folder."""
    if missing := [name for name in ("pytest", "nbval") if find_spec(name) is None]:
        print(f'miniserve: grading needs {missing[0]}: pip install -e ".[test,notebooks]"', file=sys.stderr)
        return 3
    from miniserve.course.grade.folder import NO_GRADING, grade

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name may hold what this terminal can't show
    if args.sandbox == "none":
        print("NO SANDBOX: these submissions can do whatever you can do on this machine", file=sys.stderr)
    try:
        graded, code = grade(_order(args), args.out)
    except SetupError as error:
        print(f"miniserve: {error}", file=sys.stderr)
        return NO_GRADING
    _sum_up(graded, args.out)
    return code


def _order(args: argparse.Namespace) -> Order:
    from miniserve.course.grade.books import Order

    named = {"weights": args.weights, "course_folder": args.course, "package": args.questions}
    given = {name: value for name, value in named.items() if value is not None}
    return Order(
        args.folder,
        args.chapters,
        args.sandbox,
        args.seed,
        args.jobs,
        marks=args.marks,
        roster=args.roster,
        late=args.late,
        regrade=args.regrade,
        no_run=args.no_run,
        fresh=args.fresh,
        told=_progress(),
        **given,
    )


def _progress() -> OnSheet:
    """Return what prints a line for each notebook as it is done, with the time that is left at this pace."""
    started_s = time.monotonic()

    def tell(sheet: Sheet, done: int, of: int) -> None:
        left = _duration((time.monotonic() - started_s) / done * (of - done))
        at = f"{done}/{of}" + (f", about {left} left" if done < of else "")
        print(f"{sheet.learner}  {_states(sheet)}  ({at})", flush=True)

    return tell


def _states(sheet: Sheet) -> str:
    """Return how one notebook did, on a line."""
    from miniserve.course.grade.spelling import printable

    if sheet.handed.problem:
        return f"{sheet.handed.file}  unreadable: {printable(sheet.handed.problem)}"
    states = [verdict.status.value for verdict in sheet.verdicts.values()]
    return f"{sheet.chapter:02}  " + ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5_400 else f"{seconds / 3600:.1f} h"


def _sum_up(graded: Graded, out: Path) -> None:
    """Print how much was graded, what must not be overlooked, and where the rest is."""
    from miniserve.course.grade.spelling import printable

    protected = "the notebooks ran in bwrap" if graded.sandbox == "bwrap" else "NO SANDBOX: only for code you trust"
    print(f"\n{len(graded.learners)} learners, {len(graded.sheets)} notebooks; {protected}")
    lost = [f"{file.path}: {file.became}" for file in graded.files if file.look]
    for line in (*graded.lost_marks, *graded.notes, *lost):
        print(f"look: {printable(line)}")
    print(f"grades.csv, report.html and the rest are in {out}")
