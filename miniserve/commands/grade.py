"""`miniserve grade DIR --out OUT`: grade the notebooks in a folder, and write the reports.

Exit code 0 if everything was graded, whatever the marks; 2 if a submission could not be; 3 if grading itself failed.
"""

from __future__ import annotations

import argparse
import io
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
    parser.add_argument("--chapters", type=int, nargs="+", default=[], metavar="NN", help="default: those handed in")
    parser.add_argument("--sandbox", choices=("auto", "bwrap", "none"), default="auto", help="none: code you trust")
    parser.add_argument("--seed", type=int, default=1, help="of the cases that are drawn (default %(default)s)")
    parser.add_argument("--jobs", type=at_least_one, default=1, metavar="N", help="notebooks at a time (default 1)")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="default: data/course/weights.toml")
    parser.add_argument("--marks", type=Path, metavar="FILE", help="free_text.csv with its marks filled in")
    parser.add_argument("--fresh", action="store_true", help="grade again what OUT has sheets of already")
    parser.add_argument("--course", type=Path, metavar="DIR", help="chapters of another course than this one")
    parser.add_argument("--questions", metavar="PACKAGE", help="its questions")


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
    protected = "the notebooks ran in bwrap" if graded.sandbox == "bwrap" else "NO SANDBOX: only for code you trust"
    print(f"\n{len(graded.learners)} learners, {len(graded.sheets)} notebooks; {protected}")
    print(f"grades.csv, report.html and the rest are in {args.out}")
    return code


def _order(args: argparse.Namespace) -> Order:
    from miniserve.course.grade.folder import Order

    named = {"weights": args.weights, "course_folder": args.course, "package": args.questions}
    given = {name: value for name, value in named.items() if value is not None}
    return Order(
        args.folder,
        args.chapters,
        args.sandbox,
        args.seed,
        args.jobs,
        marks=args.marks,
        told=_tell,
        fresh=args.fresh,
        **given,
    )


def _tell(sheet: Sheet) -> None:
    """Print one notebook's line, and what was not correct."""
    from miniserve.course.grade.spelling import printable

    if sheet.handed.problem:
        name, file, problem = map(printable, (sheet.learner, sheet.handed.file, sheet.handed.problem))
        print(f"{name}  {file}  unreadable: {problem}", flush=True)
        return
    states = [verdict.status.value for verdict in sheet.verdicts.values()]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    print(f"{printable(sheet.learner)}  {sheet.chapter:02}  {counts}", flush=True)
