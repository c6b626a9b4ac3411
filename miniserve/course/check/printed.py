"""What an answer prints while a check asks it: the first line is shown, the rest only counted.

A check calls a function many times, so one `print` in it would bury the verdict.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TextIO

from miniserve.course.check.verdict import Problem

RETURNS_NOTHING = "returns-nothing"


@dataclass
class FirstLine(io.TextIOBase):
    """A text stream that passes its first line on to `to` and counts the others."""

    to: TextIO
    first: str = ""
    lines: int = 0

    def write(self, text: str) -> int:
        if not self.lines:
            head, newline, _ = text.partition("\n")
            self.first += head
            self.to.write(head + newline)
        self.lines += text.count("\n")
        return len(text)

    def writable(self) -> bool:
        return True


@contextlib.contextmanager
def first_line_only() -> Iterator[FirstLine]:
    """Inside the block, let only the first line through to standard output; then say how many more there were."""
    printed = FirstLine(sys.stdout)
    with contextlib.redirect_stdout(printed):
        yield printed
    if printed.lines > 1:
        more = "1 more line" if printed.lines == 2 else f"{printed.lines - 1:,} more lines"
        print(f"(and {more} that your code printed)")


def returned_nothing(where: str = "") -> Problem:
    """Return the problem of a function that ends without a `return`."""
    why = "A function that ends without `return` gives None."
    return Problem(RETURNS_NOTHING, "None", why, "Does every way through it end with a return?", where)


def with_print(problem: Problem, first: str) -> Problem:
    """Say of a function that returned nothing what it printed in place of that."""
    if problem.id != RETURNS_NOTHING or not first.strip():
        return problem
    why = "Printing shows a value to you; only `return` hands it to the code that called the function."
    return replace(
        problem, what=f"it printed {first[:40]!r}, and returned None", why=why, next="Write `return` for `print`."
    )
