"""The code answers of the bank: whole texts, and differences from the solution, as in `bank/ch12/wrong_12.1.diff`:

    === remembers                   the answer's name; a comment may follow: # ...
    -        return first           a line of the solution that goes
    +        self.last = first      lines that come in its place
    +        return first
                                    an empty line: the next lines belong to another place
             self.seed = seed       a line that stays says where, if no line goes or the same stands elsewhere too
    +        self.last = None

The lines that go or stay must stand in the solution, one below the other, in exactly one place. Comments at the ends of
its lines are left out, so that no answer hangs on their words.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from miniserve.course.mutation import run as mutate

BANK = Path(__file__).parent / "bank"
Place = tuple[str, str]  # lines of the solution, and what stands there instead


@dataclass(frozen=True)
class Answer:
    """One answer as a module's text: `text`, or the solution changed in `places`."""

    question_id: str
    name: str  # wrong_12.1_herds__first: with two underscores and a word if several have the same problem
    text: str = ""
    places: tuple[Place, ...] = ()

    @property
    def problem(self) -> str:
        """The id that a wrong answer must be told; empty for a right one."""
        side, _, what = self.name.split("_", 2)
        return what.partition("__")[0] if side == "wrong" else ""

    def full_text(self) -> str:
        return changed(solution(self.question_id), self.places, self.name) if self.places else self.text


def answers(number: int) -> Iterator[Answer]:
    """Yield the code answers of a chapter."""
    for path in sorted((BANK / f"ch{number:02}").glob("*_*")):
        found = re.fullmatch(r"((?:wrong|right)_(\d+\.\d+\w*?))(_.+\.py|\.diff)", path.name)
        assert found is not None, f"{path}: call it wrong_12.1.diff, or wrong_12.1_<problem id>.py; or right_..."
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".diff":
            yield from (Answer(found[2], f"{found[1]}_{name}", places=places) for name, places in differences(text))
        else:
            assert text.startswith(f"# question: {found[2]}\n"), f"{path}: its first line is `# question: {found[2]}`"
            yield Answer(found[2], path.stem, text)


def differences(text: str) -> Iterator[tuple[str, tuple[Place, ...]]]:
    """Yield the names in a file of differences, each with its places."""
    for entry in re.split(r"^=== ", text, flags=re.MULTILINE)[1:]:
        name, _, body = re.sub(r"^#.*\n", "", entry, flags=re.MULTILINE).partition("\n")
        yield name, tuple(_place(name, lines.split("\n")) for lines in re.split(r"\n\n+", body.strip("\n")))


def _place(name: str, lines: Sequence[str]) -> Place:
    odd = [line for line in lines if line[:1] not in ("-", "+", " ")]
    assert not odd, f"{name}: {odd[0]!r} starts neither with '-' or '+' nor with a space"
    was, now = ("".join(f"{line[1:]}\n" for line in lines if line[0] in marks) for marks in ("- ", "+ "))
    assert was, f"{name}: nothing says where {now.strip()!r} goes; put a line before or after it that stays"
    return was, now


def changed(text: str, places: Sequence[Place], name: str) -> str:
    """Return the text with all places changed."""
    end = len(text)
    for at, was, now in sorted(((_find(text, was, name), was, now) for was, now in places), reverse=True):
        assert at + len(was) <= end, f"{name}: two of its places overlap:\n{was}"
        text, end = text[:at] + now + text[at + len(was) :], at
    return text


def _find(text: str, was: str, name: str) -> int:
    count = f"\n{text}".count(f"\n{was}")
    assert count == 1, f"{name}: these lines stand in {count} places of the solution, not in one:\n{was}"
    return f"\n{text}".index(f"\n{was}")


@functools.cache
def solution(question_id: str) -> str:
    """Return the solution's text: the answer cell's imports, and the library's own class or function."""
    number = int(question_id.partition(".")[0])
    text = next(one.text for one in mutate.solutions(number) if one.question_id == question_id)
    return re.sub(r"  # .*", "", text)
