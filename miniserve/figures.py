"""A TOML table of figures, checked one by one: known key, present, a number, and a plausible one.

A figure in the wrong unit is a thousand or a million times too large or too small, so plausible ranges find it. Every
refusal is one line with file, key, value, and what is allowed. Knows TOML; not what the figures mean.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from miniserve.errors import SetupError

Range = tuple[float, float]  # lowest and highest plausible value; two ints where only whole numbers make sense


def read_table(path: Path, example: str) -> Table:
    """Return the whole file as a table. Raises: SetupError if it is absent or not TOML."""
    try:
        return Table(path, "", tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise SetupError(f"{path} does not exist: see {example}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SetupError(f"{path} is not valid TOML: {error}") from None


class Table:
    """One table of the file, with the name by which errors call it."""

    def __init__(self, path: Path, where: str, raw: Any) -> None:
        if not isinstance(raw, dict):
            raise SetupError(f"{path}: {where.rstrip('.')} is {raw!r}; a table is needed")
        self.path = path
        self.where = where
        self.raw = raw

    def __getitem__(self, key: str) -> Any:
        return self.raw[key]

    def refuse(self, key: str, value: object, needed: str) -> NoReturn:
        raise SetupError(f"{self.path}: {self.where}{key} is {value!r}; needed is {needed}")

    def table(self, key: str) -> Table:
        if key not in self.raw:
            raise SetupError(f"{self.path}: table [{self.where}{key}] is missing")
        return Table(self.path, f"{self.where}{key}.", self.raw[key])

    def tables(self) -> list[tuple[str, Table]]:
        return [(name, self.table(name)) for name in self.raw]

    def check_keys(self, allowed: set[str]) -> None:
        for key in self.raw:
            if key not in allowed:
                raise SetupError(unknown(f"{self.path}: {self.where.rstrip('.') or 'the file'}, key", key, allowed))

    def numbers(
        self,
        required: Mapping[str, Range],
        optional: Mapping[str, Range] | None = None,
        sources: tuple[str, ...] = (),
        tables: tuple[str, ...] = (),
    ) -> dict[str, float]:
        """Return all figures, checked; a figure without its source is refused like one that is missing."""
        optional = optional or {}
        self.check_keys({*required, *optional, *sources, *tables})
        for key in (*required, *sources):
            if key not in self.raw:
                raise SetupError(f"{self.path}: {self.where}{key} is missing")
        for key in sources:
            if not isinstance(self.raw[key], str) or not self.raw[key].strip():
                self.refuse(key, self.raw[key], "a few words that say where the figures come from")
        ranges = {**required, **optional}
        return {key: self._number(key, *ranges[key]) for key in ranges if key in self.raw}

    def _number(self, key: str, lowest: float, highest: float) -> float:
        value = self.raw[key]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not lowest <= value <= highest:
            self.refuse(key, value, f"a number from {lowest:g} to {highest:g} (the unit is in the name)")
        if isinstance(lowest, int) and value != int(value):
            self.refuse(key, value, "a whole number")
        return float(value)


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Return the sentence about a name that is not one of `known`."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{what} {name!r} is unknown: {hint}there are {', '.join(known)}"
