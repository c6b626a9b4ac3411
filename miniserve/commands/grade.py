"""`miniserve grade DIR --out OUT`: grade the notebooks in a folder, and write the reports.

Exit code 0 if everything was graded, whatever the marks; 2 if at least one submission could not be graded; 3 if grading
itself failed.
"""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from miniserve.commands.options import at_least_one
from miniserve.errors import SetupError

if TYPE_CHECKING:
    from miniserve.course.grade.folder import Order
    from miniserve.course.grade.sheet import Sheet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="DIR/<learner>/<chapter>.ipynb")
    parser.add_argument("--out", type=Path, required=True, metavar="OUT", help="where the reports go")
    parser.add_argument(
        "--chapters",
        type=int,
        nargs="+",
        default=[],
        metavar="NN",
        help="chapters to grade (default: all that were handed in)",
    )
    parser.add_argument(
        "--sandbox",
        choices=("auto", "bwrap", "none"),
        default="auto",
        help="where submissions run (default %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=1, help="seed for drawing test cases (default %(default)s)")
    parser.add_argument(
        "--jobs", type=at_least_one, default=1, metavar="N", help="notebooks graded in parallel (default 1)"
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="weights of questions (default: data/course/weights.toml)"
    )
    parser.add_argument("--marks", type=Path, metavar="FILE", help="free_text.csv with the marks filled in")
    parser.add_argument("--course", type=Path, metavar="DIR", help="chapters of another course")
    parser.add_argument("--questions", metavar="PACKAGE", help="questions of another course")


def run(args: argparse.Namespace) -> int:
    """Grade a folder."""
    if missing := [name for name in ("pytest", "nbval") if find_spec(name) is None]:
        print(f'miniserve: grading needs {missing[0]}: pip install -e ".[test,notebooks]"', file=sys.stderr)
        return 3
    from miniserve.course.grade.folder import NO_GRADING, grade

    try:
        graded, code = grade(_order(args), args.out)
    except SetupError as error:
        print(f"miniserve: {error}", file=sys.stderr)
        return NO_GRADING
    protected = "the notebooks ran in bwrap" if graded.sandbox == "bwrap" else "NO SANDBOX: only for code you trust"
    print(f"\n{len(graded.learners)} learners, {len(graded.sheets)} notebooks; {protected}")
    print(f"grades.csv, report.html and the rest are in {args.out}")
    return code


def _order(args: argparse.Namespace) -> Order:
    from miniserve.course.grade.folder import Order

    named = {"weights": args.weights, "course_folder": args.course, "package": args.questions}
    given = {name: value for name, value in named.items() if value is not None}
    return Order(args.folder, args.chapters, args.sandbox, args.seed, args.jobs, marks=args.marks, told=_tell, **given)


def _tell(sheet: Sheet) -> None:
    """Print one notebook's line."""
    if sheet.handed.problem:
        print(f"{sheet.learner}  {sheet.handed.file}  unreadable: {sheet.handed.problem}", flush=True)
        return
    states = [verdict.status.value for verdict in sheet.verdicts.values()]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    print(f"{sheet.learner}  {sheet.chapter:02}  {counts}", flush=True)
