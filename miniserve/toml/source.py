"""A TOML file that knows where each of its values stands.

`tomllib` gives values without line numbers, and an error that does not say where is half an error. So the text is read
twice: by `tomllib` for the values, and by a small scanner for the line at which each key or list item begins. The
scanner may assume valid TOML, because `tomllib` came first.

A place is a path: ("fleet", "groups", 0, "count"). What was laid over the file (a variant, `--set`) has places too.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from miniserve.errors import SetupError

Place = tuple[str | int, ...]


@dataclass(frozen=True)
class TomlSource:
    """The values of a file, perhaps with others laid over them, and the origin of each."""

    name: str
    values: dict[str, Any]
    text: str = ""  # what `values` were read from
    origins: tuple[tuple[Place, str], ...] = ()  # (place, where it came from), for what was laid over; latest last

    @cached_property
    def lines(self) -> Mapping[Place, int]:
        """At which line each key and list item begins; most files are right, and nobody asks."""
        return _Scanner(self.text).scan()

    def where(self, place: Place) -> str:
        """Return `file:line` of a place, or of the nearest thing around it that has one."""
        for end in range(len(place), -1, -1):
            for origin, said in reversed(self.origins):
                if origin == place[:end]:
                    return said
            if place[:end] in self.lines:
                return f"{self.name}:{self.lines[place[:end]]}"
        inside = [said for origin, said in self.origins if origin[: len(place)] == place]  # a table that a setting made
        return inside[-1] if inside and place else self.name

    def error(self, place: Place, problem: str) -> SetupError:
        """Return the error that names file, line and key."""
        key = dotted(place)
        return SetupError(f"{self.where(place)}: {key + ': ' if key else ''}{problem}")

    def with_laid_over(self, table: Mapping[str, Any], place: Place) -> TomlSource:
        """Lay `table`, which stands at `place` of the file, over the rest. Its lines are its own."""
        skip = len(place)
        origins = tuple((inner[skip:], self.where(inner)) for inner in _places(table, place) if len(inner) > skip)
        return replace(self, values=laid_over(self.values, table), origins=self.origins + origins)

    def with_tables_of(self, other: TomlSource, places: Iterable[Place]) -> TomlSource:
        """Put the tables at `places` of another file in the place of our own; what it does not have stays as it is."""
        result = self
        for place in places:
            if (table := _found(other.values, place)) is not None:
                values = deepcopy(result.values)
                _put(values, Setting(place, table, other.where(place)))
                origins = tuple((inner, other.where(inner)) for inner in _places(table, place))
                result = replace(result, values=values, origins=result.origins + origins)
        return result

    def with_setting(self, setting: Setting) -> TomlSource:
        """Put one value in its place. Raises: SetupError if that leads through something that is no table or list."""
        values = deepcopy(self.values)
        _put(values, setting)
        return replace(self, values=values, origins=(*self.origins, (setting.place, setting.origin)))


@dataclass(frozen=True, slots=True)
class Setting:
    """One value laid over a file. `origin` is what errors name, such as the option it came from."""

    place: Place
    value: Any
    origin: str

    @classmethod
    def parse(cls, text: str, option: str = "--set") -> Setting:
        """Read `a.b.c=value`. The value is TOML; a bare word is text. Raises: SetupError if it is not of that form."""
        key, equals, value = text.partition("=")
        place = tuple(int(part) if part.isdigit() else part for part in key.strip().split("."))
        if not equals or "" in place:
            raise SetupError(f"{option} {text}: write KEY=VALUE, for example {option} workload.arrivals.rate_per_s=5")
        return cls(place, _value(value.strip()), f"{option} {text}")


def read_source_file(path: Path) -> TomlSource:
    """Read a TOML file. Raises: SetupError if there is none, or it is not TOML."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors put a byte order mark first
    except FileNotFoundError:
        raise SetupError(f"{path} does not exist") from None
    except UnicodeDecodeError:
        encoding = "UTF-16" if path.read_bytes()[:2] in (b"\xff\xfe", b"\xfe\xff") else "not UTF-8"
        raise SetupError(f"{path} cannot be read: it is {encoding} text; save it as UTF-8") from None
    except OSError as error:
        raise SetupError(f"{path} cannot be read: {error}") from None
    return parse(text, str(path))


def parse(text: str, name: str) -> TomlSource:
    """Return the values of `text`. Raises: SetupError if it is not TOML."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SetupError(f"{name} is not valid TOML: {error}") from None
    except RecursionError:
        raise SetupError(f"{name} has lists or tables that are nested too deeply to be read") from None
    return TomlSource(name, values, text)


def dotted(place: Place) -> str:
    """Return `a.b[0].c`, as people write it."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".")


def first_named(message: str, keys: Iterable[str]) -> str | None:
    """Return the first of `keys` that a message speaks of.

    A key that is also a word ("file", "format") is meant only at the beginning, or before its value in brackets.
    """
    patterns = {key: rf"\b{re.escape(key)}\b" if "_" in key else rf"^{key}\b|\b{key} \(|`{key}`" for key in keys}
    found = {key: re.search(pattern, message) for key, pattern in patterns.items()}
    return min(((match.start(), key) for key, match in found.items() if match), default=(0, None))[1]


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return `below` with `above` laid over it, table by table; lists, and tables that name a `kind`, whole."""
    result = deepcopy(dict(below))
    for key, value in above.items():
        both_tables = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = laid_over(result[key], value) if both_tables and "kind" not in value else deepcopy(value)
    return result


def _places(value: object, place: Place) -> list[Place]:
    """Return the places of everything in `value`, outer ones first."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(inner for key, item in items for inner in _places(item, (*place, key)))]


def _found(values: Any, place: Place) -> Any:
    """Return what stands at `place`, or None."""
    for part in place:
        if not isinstance(values, dict) or part not in values:
            return None
        values = values[part]
    return values


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text


def _put(values: Any, setting: Setting) -> None:
    place = setting.place
    for depth, part in enumerate(place):
        last = depth == len(place) - 1
        if isinstance(values, dict):
            key: str | int = str(part)
            values.setdefault(key, {})
        elif isinstance(values, list) and isinstance(part, int) and part < len(values):
            key = part
        else:
            raise SetupError(f"{setting.origin}: {dotted(place[: depth + 1])} does not exist")
        if last:
            values[key] = setting.value
        elif isinstance(values[key], str):
            values[key] = {"kind": values[key]}  # the short form of a table that may get more keys
        values = values[key]


class _Scanner:
    """Walks through valid TOML and notes the line at which each key and each list item begins."""

    def __init__(self, text: str) -> None:
        self._text = text + "\n"
        self._at = 0
        self._lines: dict[Place, int] = {}
        self._tables: Counter[Place] = Counter()  # how many [[tables]] of each name so far

    def scan(self) -> dict[Place, int]:
        table: Place = ()
        while self._skip(" \t\r\n"):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
        return self._lines

    def _note(self, place: Place) -> None:
        self._lines.setdefault(place, self._text.count("\n", 0, self._at) + 1)

    def _skip(self, blanks: str) -> bool:
        """Go to the next character that is neither blank nor comment; return whether there is one."""
        while self._at < len(self._text):
            if self._text[self._at] == "#":
                self._at = self._text.index("\n", self._at)
            elif self._text[self._at] not in blanks:
                return True
            else:
                self._at += 1
        return False

    def _header(self) -> Place:
        is_list = self._text.startswith("[[", self._at)
        start = self._at
        self._at += 2 if is_list else 1
        keys = self._keys("]")
        self._at, end = start, self._at + (2 if is_list else 1)
        place = self._last_of(keys[:-1] if is_list else keys)
        if is_list:
            named: Place = (*place, keys[-1])
            self._note(named)
            place = (*named, self._tables[named])
            self._tables[named] += 1
        self._note(place)
        self._at = end
        return place

    def _last_of(self, keys: Sequence[str]) -> Place:
        """Return the place of a table's name: inside a list of tables, its last one is meant."""
        place: Place = ()
        for key in keys:
            place = (*place, key)
            if place in self._tables:
                place = (*place, self._tables[place] - 1)
        return place

    def _pair(self, table: Place) -> None:
        start = self._at
        keys = self._keys("=")
        self._at, value_at = start, self._at + 1
        for i in range(len(keys)):
            self._note((*table, *keys[: i + 1]))
        self._at = value_at
        self._skip(" \t")
        self._value((*table, *keys))

    def _keys(self, until: str) -> list[str]:
        """Read a dotted key; stop at `until`."""
        keys = []
        while self._skip(" \t.") and self._text[self._at] != until:
            start = self._at
            if self._text[start] in "\"'":
                self._string()
                keys.append(str(tomllib.loads(f"k = {self._text[start : self._at]}")["k"]))
            else:
                while self._text[self._at] not in " \t.=]":
                    self._at += 1
                keys.append(self._text[start : self._at])
        return keys

    def _value(self, place: Place) -> None:
        opener = self._text[self._at]
        if opener in "\"'":
            self._string()
        elif opener == "[":
            self._at += 1
            item = 0
            while self._skip(" \t\r\n,") and self._text[self._at] != "]":
                self._note((*place, item))
                self._value((*place, item))
                item += 1
            self._at += 1
        elif opener == "{":
            self._at += 1
            while self._skip(" \t\r\n,") and self._text[self._at] != "}":
                self._pair(place)
            self._at += 1
        else:
            while self._text[self._at] not in ",]}#\n":
                self._at += 1

    def _string(self) -> None:
        quote = self._text[self._at]
        mark = quote * 3 if self._text.startswith(quote * 3, self._at) else quote
        self._at += len(mark)
        while not self._text.startswith(mark, self._at):
            self._at += 2 if quote == '"' and self._text[self._at] == "\\" else 1
        self._at += len(mark)
        while len(mark) == 3 and self._text.startswith(quote, self._at):  # quotes before the closing ones
            self._at += 1
