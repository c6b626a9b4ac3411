"""`python -m miniserve course build [--check | --all | --times] [NN ...]`: makes two notebooks from each source.

    solutions/06_percentiles.py ──> chapters/06_percentiles.ipynb    stubs, no outputs
                                ──> solutions/06_percentiles.ipynb   solved, executed

It executes a solved notebook again only if its code or the library's has changed. `--check` executes nothing: it
compares the files with what the sources give, and the hashes of stored outputs with the code that they came from.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from miniserve.course import chapters
from miniserve.course.check.question import Question
from miniserve.course.notebook.consistency import problems
from miniserve.course.notebook.execute import execute
from miniserve.course.notebook.notebooks import (
    Notebook,
    Texts,
    by_id,
    dumps,
    learner_notebook,
    loads,
    made_from,
    solved_notebook,
    states,
    texts,
    without_outputs,
)
from miniserve.course.notebook.source import Source, read_source
from miniserve.course.notebook.times import label, note_times, read_times
from miniserve.errors import SetupError

ROOT = Path(__file__).resolve().parents[3]
COMMAND = "python -m miniserve course build"


def questions_of(number: int) -> Mapping[str, Question]:
    """Return a chapter's questions by id; none for a notebook without a number."""
    if number == 0:
        return {}
    try:
        module = import_module(f"{chapters.folder(number)}.questions")
    except LookupError as error:
        raise SetupError(f"chapter {number} has no questions: {error}") from None
    return {question.id: question for question in module.QUESTIONS}


@dataclass(frozen=True, slots=True)
class Course:
    """Where a course is: `solutions/`, `chapters/` and the library below `root`."""

    root: Path = ROOT
    questions: Callable[[int], Mapping[str, Question]] = questions_of

    def sources(self, wanted: Sequence[str] = ()) -> list[Path]:
        """Return the sources named by number or name, or all. Raises: SetupError if there is no such source."""
        there = sorted(self.root.glob("solutions/*.py"))
        for name in wanted:
            if not any(_means(name, path) for path in there):
                known = ", ".join(path.stem for path in there) or "none"
                raise SetupError(f"there is no source for {name!r} in solutions/; there are {known}")
        return [path for path in there if not wanted or any(_means(name, path) for name in wanted)]

    def learner_path(self, source: Source) -> Path:
        return self.root / "chapters" / f"{source.name}.ipynb"

    def solved_path(self, source: Source) -> Path:
        return self.root / "solutions" / f"{source.name}.ipynb"

    def lab(self, source: Source) -> str:
        """Return the text of the lab that the chapter's cells call: outputs depend on it."""
        folder = f"ch{source.name}" if source.number else source.name
        path = self.root / f"miniserve/course/chapters/{folder}/lab.py"
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    def read(self, path: Path) -> tuple[Source, list[Texts]]:
        """Read a source and its cells' texts. Raises: SetupError with everything that is wrong."""
        shown = path.relative_to(self.root) if path.is_relative_to(self.root) else path
        source = read_source(path, shown)
        if found := problems(source, self.questions(source.number)):
            raise SetupError("\n".join(found))
        return source, texts(source, self.root, label(read_times(self.root).get(source.name)))


def _means(name: str, path: Path) -> bool:
    return path.stem in (name, Path(name).stem) or path.stem.startswith(f"{name.zfill(2)}_")


def build(course: Course, path: Path, again: bool = False, times: bool = False) -> str:
    """Write both notebooks of one source; return what was done.

    `again` executes even what has not changed; `times` records what the run took. Raises: SetupError.
    """
    source, cells = course.read(path)
    learner, solved = course.learner_path(source), course.solved_path(source)
    learner.parent.mkdir(exist_ok=True)
    if again or _stale(course, source, cells):
        made = solved_notebook(source, cells, {}, course.lab(source))
        ran, took = execute(made, source, solved.parent, course.root)
        _refuse_unsolved(course, source, ran)
        if times or source.name not in read_times(course.root):
            note_times(course.root, source.name, took)
            source, cells = course.read(path)  # the header tells the time
        stored, what = by_id(ran), f"executed in {took.seconds:.0f} s"
    else:
        stored, what = by_id(loads(solved)), "outputs kept"
    solved.write_text(dumps(solved_notebook(source, cells, stored, course.lab(source))), encoding="utf-8", newline="\n")
    learner.write_text(dumps(learner_notebook(source, cells)), encoding="utf-8", newline="\n")
    return f"{source.name}: {what}; {learner.stat().st_size / 1000:.0f} kB and {solved.stat().st_size / 1000:.0f} kB"


def _stale(course: Course, source: Source, cells: Sequence[Texts]) -> bool:
    return bool(_stale_outputs(course, source, cells))


def _stale_outputs(course: Course, source: Source, cells: Sequence[Texts]) -> str:
    """Return why the stored outputs don't belong to this code; empty if they do."""
    path = course.solved_path(source)
    if not path.is_file():
        return "it does not exist"
    stored = loads(path)
    before = stored["metadata"].get("miniserve", {}).get("made_from", {})
    now = made_from(cells, course.lab(source))
    for text in cells:
        if text.cell.is_code and before.get(text.cell.id) != now[text.cell.id]:
            return f"its outputs from cell {text.cell.id} on came from other code ({source.at(text.cell)})"
    unrun = [c["id"] for c in stored["cells"] if c["cell_type"] == "code" and c["execution_count"] is None]
    return f"cell {unrun[0]} was never executed" if unrun else ""


def _refuse_unsolved(course: Course, source: Source, ran: Notebook) -> None:
    told = states(ran)
    for id_ in course.questions(source.number):
        if told.get(id_) not in ("CORRECT", "NOTED"):
            raise SetupError(f"{source.path}:1: {id_} is {told.get(id_, 'not checked')} in the solved notebook")


def stale(course: Course, path: Path) -> list[str]:
    """Return the generated files that differ from what their source gives, each with the reason; execute nothing."""
    source, cells = course.read(path)
    learner, solved = course.learner_path(source), course.solved_path(source)
    found = []
    if not learner.is_file() or learner.read_text(encoding="utf-8") != dumps(learner_notebook(source, cells)):
        found.append(f"{_shown(course, learner)} is not what {source.path} gives")
    if why := _stale_outputs(course, source, cells):
        found.append(f"{_shown(course, solved)}: {why}")
    elif dumps(without_outputs(loads(solved))) != dumps(solved_notebook(source, cells, {}, course.lab(source))):
        found.append(f"{_shown(course, solved)} is not what {source.path} gives")
    return [f"{line}; run: {COMMAND} {source.name}" for line in found]


def strays(course: Course) -> list[str]:
    """Return notebooks in chapters/ and solutions/ without a source, except those that a learner's update keeps."""
    names = {path.stem for path in course.sources()}
    there = sorted([*course.root.glob("chapters/*.ipynb"), *course.root.glob("solutions/*.ipynb")])
    return [
        f"{_shown(course, path)} has no source solutions/{path.stem}.py: remove it"
        for path in there
        if path.stem not in names and ".old" not in path.stem
    ]


def _shown(course: Course, path: Path) -> Path:
    return path.relative_to(course.root)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a build."""
    parser.add_argument("chapters", nargs="*", metavar="NN", help="numbers or names; all if none is given")
    parser.add_argument("--check", action="store_true", help="execute nothing; say which files are stale")
    parser.add_argument("--all", action="store_true", help="execute even what has not changed")
    parser.add_argument("--times", action="store_true", help="like --all, and record run times; use an idle machine")


def run(args: argparse.Namespace, course: Course | None = None) -> int:
    """Build or check; return 1 if something is stale or wrong."""
    course = course or Course()
    wrong = strays(course) if args.check and not args.chapters else []
    for path in course.sources(args.chapters):
        try:
            if args.check:
                wrong += stale(course, path)
            else:
                print(f"[build] {build(course, path, args.all or args.times, args.times)}", flush=True)
        except SetupError as error:
            wrong.append(str(error))
    for line in wrong:
        print(line, file=sys.stderr)
    if args.check and not wrong:
        print("[build] all notebooks are what their sources give")
    return 1 if wrong else 0
