"""`python -m miniserve course mutate [NN ...]`: does a chapter's check notice small mistakes in its own solutions?

It mutates every solution that is code (a library body, a formula) in every way that `operators.py` knows. The check
judges each mutant in a process of its own, killed when it takes too long. A mutant that passes is a hole in the check,
unless `tests/course/bank/chNN/equivalent.toml` declares, with a reason, that it is not a mistake:

    [[equivalent]]
    question = "12.4"
    was = "second = draw // count % (count - 1)"
    now = "second = draw * count % (count - 1)"
    reason = "..."
"""

from __future__ import annotations

import argparse
import multiprocessing
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any

from miniserve.course.check.ask import ask
from miniserve.course.check.chapter import chapter
from miniserve.course.check.code import Code
from miniserve.course.check.question import check
from miniserve.course.check.verdict import Status
from miniserve.course.mutation.operators import Mutant, mutants
from miniserve.course.notebook.source import Source, read_source, solved_text
from miniserve.course.notebook.targets import take
from miniserve.errors import SetupError

ROOT = Path(__file__).resolve().parents[3]
LEAST_KILLED, MOST_EQUIVALENT = 0.95, 0.10  # of all mutants that are mistakes; of all mutants
_PATIENCE_S = 60.0  # for one answer; its own code gets the same time as in a notebook
_START_S = 180.0  # to import, even on a busy machine
_MUTATED_KINDS = ("code", "F")


@dataclass(frozen=True, slots=True)
class SolvedText:
    """A solved answer as a module's text, and the functions in it that a learner writes (None: all)."""

    question_id: str
    text: str
    functions: frozenset[str] | None


@dataclass(slots=True)
class Score:
    """What became of one question's mutants."""

    question_id: str
    killed: int = 0
    equivalent: int = 0
    survivors: list[Mutant] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)  # declared equivalent, but no mutant reads like that

    @property
    def total(self) -> int:
        return self.killed + self.equivalent + len(self.survivors)

    @property
    def killed_fraction(self) -> float:
        mistakes = self.killed + len(self.survivors)
        return self.killed / mistakes if mistakes else 1.0

    @property
    def good(self) -> bool:
        return self.killed_fraction >= LEAST_KILLED and not self.unused

    def lines(self) -> Iterator[str]:
        """Yield the score, and what is wrong with it."""
        yield (
            f"{self.question_id:6} {self.killed_fraction:7.1%} killed: {self.killed} of {self.total} mutants, "
            f"{self.equivalent} declared equivalent, {len(self.survivors)} survived"
        )
        for mutant in self.survivors:
            yield f"       survived: {mutant.was}  ->  {mutant.now or '(gone)'}"
        for was in self.unused:
            yield f"       equivalent.toml: no surviving mutant reads {was}"


# --- the solutions to mutate ---------------------------------------------------------------------------------------


def module_text(number: int, root: Path = ROOT) -> Source:
    """Read the source of a chapter. Raises: SetupError if there is none."""
    for path in root.glob(f"solutions/{number:02}_*.py"):
        return read_source(path, path.relative_to(root))
    raise SetupError(f"chapter {number} has no source solutions/{number:02}_*.py")


def solutions(number: int, root: Path = ROOT) -> list[SolvedText]:
    """Return the solved answers of a chapter that are code."""
    source, found = module_text(number, root), []
    ch = chapter(number, learner="")
    for cell in source.cells:
        question = ch.question(cell.question) if cell.question else None
        if question is None or question.kind not in _MUTATED_KINDS:
            continue
        text, functions = solved_text(cell), None
        if isinstance(question, Code):
            taken = take(cell.target, question.id, root)
            text, functions = f"{text}\n\n\n{taken.solved}\n", frozenset(question.methods or (question.symbol,))
        found.append(SolvedText(question.id, text, functions))
    return found


def answer_in(text: str, name: str) -> Any:
    """Run the text of an answer cell by itself, and return what it calls `name`; `...` if it does not."""
    namespace: dict[str, Any] = {"__name__": "answer"}
    exec(compile(text, "<answer>", "exec"), namespace)
    return namespace.get(name, ...)


def passes(question_id: str, text: str, seed: int = 1) -> bool:
    """Return whether a question's check accepts the answer in `text`."""
    question = chapter(int(question_id.partition(".")[0]), learner="").question(question_id)
    try:
        answer = answer_in(text, question.name)
    except Exception:
        return False
    if question.not_tried(answer):
        return False
    verdict = check(question, lambda drive, asked: ask(drive, answer, asked), seed)
    return verdict.status is Status.CORRECT


# --- a process that may hang ---------------------------------------------------------------------------------------


class Worker:
    """Judges answers in another process; kills one that doesn't come back, and starts a new one."""

    def __init__(self) -> None:
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def passes(self, question_id: str, text: str) -> bool:
        """Return what `passes` does. An answer that hangs, or ends its process, does not pass."""
        if self._pipe is None:
            self._start()
        assert self._pipe is not None
        try:
            self._pipe.send((question_id, text))
            if self._pipe.poll(_PATIENCE_S):
                return bool(self._pipe.recv())
        except (EOFError, OSError):
            pass
        self._end()
        return False

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        if not self._pipe.poll(_START_S):
            raise SetupError(f"a worker process did not start within {_START_S:g} s")
        self._pipe.recv()

    def _end(self) -> None:
        if self._process is not None and self._pipe is not None:
            self._pipe.close()
            self._process.kill()
            self._process.join()
        self._process = self._pipe = None


def _serve(pipe: Connection) -> None:
    pipe.send("ready")
    while True:
        try:
            question_id, text = pipe.recv()
        except EOFError:
            return
        pipe.send(passes(question_id, text))


# --- scores --------------------------------------------------------------------------------------------------------


def declared(number: int, root: Path = ROOT) -> dict[str, dict[tuple[str, str], str]]:
    """Return a chapter's equivalent mutants: question -> (was, now) -> reason. Raises: SetupError without a reason."""
    path = root / f"tests/course/bank/ch{number:02}/equivalent.toml"
    found: dict[str, dict[tuple[str, str], str]] = {}
    for row in tomllib.loads(path.read_text(encoding="utf-8")).get("equivalent", []) if path.is_file() else []:
        if not str(row.get("reason", "")).strip():
            raise SetupError(f"{path.name}: {row.get('was')!r} has no reason")
        found.setdefault(row["question"], {})[row["was"], row["now"]] = row["reason"]
    return found


def score_mutants(
    worker: Worker, solution: SolvedText, equivalents: Mapping[tuple[str, str], str], every: int = 1
) -> Score:
    """Judge every `every`-th mutant of a solution. Raises: SetupError if the solution itself does not pass."""
    if not worker.passes(solution.question_id, solution.text):
        raise SetupError(f"{solution.question_id}: the solution itself does not pass when its cell runs alone")
    result, used = Score(solution.question_id), set()
    for i, mutant in enumerate(mutants(solution.text, solution.functions)):
        if i % every:
            continue
        if not worker.passes(solution.question_id, mutant.text):
            result.killed += 1
        elif (mutant.was, mutant.now) in equivalents:
            result.equivalent += 1
            used.add((mutant.was, mutant.now))
        else:
            result.survivors.append(mutant)
    if every == 1:
        result.unused = [f"{was!r} -> {now!r}" for was, now in equivalents if (was, now) not in used]
    return result


def few_equivalent(results: Sequence[Score]) -> bool:
    """Return whether at most `MOST_EQUIVALENT` of all mutants are declared equivalent; print it if not."""
    equivalent, total = sum(result.equivalent for result in results), sum(result.total for result in results)
    if equivalent <= MOST_EQUIVALENT * total:
        return True
    print(f"{equivalent} of {total} mutants are declared equivalent; at most {MOST_EQUIVALENT:.0%} may be")
    return False


def scores(number: int, every: int = 1, root: Path = ROOT) -> Iterator[Score]:
    """Yield the score of each code answer of a chapter."""
    equivalents = declared(number, root)
    with Worker() as worker:
        for solution in solutions(number, root):
            yield score_mutants(worker, solution, equivalents.get(solution.question_id, {}), every)


def numbers(root: Path = ROOT) -> list[int]:
    """Return the chapters that have a source."""
    return sorted(int(path.name[:2]) for path in root.glob("solutions/[0-9][0-9]_*.py"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a mutation run."""
    parser.add_argument("chapters", nargs="*", type=int, metavar="NN", help="chapters; all if none is given")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="judge every Nth mutant only")


def run(args: argparse.Namespace) -> int:
    """Mutate solutions; return 1 if a score is too low, or too many mutants are declared equivalent."""
    results: list[Score] = []
    for number in args.chapters or numbers():
        for result in scores(number, args.every):
            print("\n".join(result.lines()), flush=True)
            results.append(result)
    return 0 if all(result.good for result in results) and few_equivalent(results) else 1
