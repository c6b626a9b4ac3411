"""Readers for four public trace formats: when each request came, how long it was, which blocks it shared.

    azure         LLM inference traces of AzurePublicDataset, 2023: TIMESTAMP,ContextTokens,GeneratedTokens
    mooncake      JSON lines, 2024: timestamp (ms), input_length, output_length, hash_ids (512-token blocks; without
                  them a row shares nothing). Benchmark tools write more keys, which are named but not used
    burstgpt      2024: Timestamp (s), in some files Session ID and Elapsed time, Model, Request tokens,
                  Response tokens, Total tokens, Log Type
    qwen-bailian  JSON lines, 2025: chat_id, parent_chat_id, timestamp (s), input_length, output_length, type, turn,
                  hash_ids (16-token blocks)

One row is held at a time. Anything that does not fit the format is refused with file, line and reason, and nothing is
skipped: a trace with silent gaps would be a lighter load than it seems. Times count from the first row.
"""

from __future__ import annotations

import csv
import difflib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from miniserve.errors import SetupError

MOST_TOKENS = 1 << 20  # of a row's prompt or answer; `replay` numbers the tokens of rows without overlap
_LARGEST_ID = 1 << 50  # of a block: its tokens' numbers must fit in 63 bits


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One request of a trace."""

    time_s: float
    prompt_tokens: int
    output_tokens: int
    session: str | None = None
    hash_ids: tuple[int, ...] = ()  # of the prompt's blocks, in order; equal ids mean equal blocks
    block_tokens: int = 0


def read_trace(path: Path, format: str, unused: set[str] | None = None) -> Iterator[TraceRow]:
    """Yield the rows of a file; collect the names of keys that are not used in `unused`.

    Raises: SetupError with file, line and reason, when the bad row is reached.
    """
    reader, first_s, before_s = FORMATS[format], None, -math.inf
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # spreadsheets put a byte order mark first
            for line, row in reader(str(path), file, set() if unused is None else unused):
                if row.time_s < before_s:
                    raise line.error(f"time goes backwards, by {before_s - row.time_s:g} s")
                before_s = row.time_s
                first_s = row.time_s if first_s is None else first_s
                yield replace(row, time_s=row.time_s - first_s)
    except FileNotFoundError:
        raise SetupError(f"{path} does not exist") from None
    except UnicodeDecodeError:
        encoding = "UTF-16" if path.read_bytes()[:2] in (b"\xff\xfe", b"\xfe\xff") else "not UTF-8"
        raise SetupError(f"{path} cannot be read: it is {encoding} text; save it as UTF-8") from None
    except OSError as error:
        raise SetupError(f"{path} cannot be read: {error}") from None


# --- the formats ---------------------------------------------------------------------------------------------------

_Rows = Iterator[tuple["_Line", TraceRow]]


def _azure(name: str, file: Iterator[str], unused: set[str]) -> _Rows:
    for line in _csv(name, file, ("TIMESTAMP", "ContextTokens", "GeneratedTokens")):
        yield line, TraceRow(line.moment_s("TIMESTAMP"), line.tokens("ContextTokens"), line.tokens("GeneratedTokens"))


def _mooncake(name: str, file: Iterator[str], unused: set[str]) -> _Rows:
    needed = ("timestamp", "input_length", "output_length")
    for line in _json_lines(name, file, needed, ("hash_ids",), unused):
        prompt_tokens = line.tokens("input_length")
        ids = line.ids("hash_ids", prompt_tokens, 512) if "hash_ids" in line.fields else ()
        yield (
            line,
            TraceRow(line.number("timestamp") / 1000, prompt_tokens, line.tokens("output_length"), None, ids, 512),
        )


def _burstgpt(name: str, file: Iterator[str], unused: set[str]) -> _Rows:
    needed = ("Timestamp", "Model", "Request tokens", "Response tokens", "Total tokens", "Log Type")
    for line in _csv(name, file, needed, ("Session ID", "Elapsed time")):
        session = line.fields.get("Session ID") or None
        prompt_tokens, output_tokens = line.tokens("Request tokens"), line.tokens("Response tokens")
        yield line, TraceRow(line.number("Timestamp"), prompt_tokens, output_tokens, session)


def _qwen_bailian(name: str, file: Iterator[str], unused: set[str]) -> _Rows:
    keys = ("chat_id", "parent_chat_id", "timestamp", "input_length", "output_length", "type", "turn", "hash_ids")
    chat_of: dict[int, int] = {}  # request -> the first request of its chat; small numbers, kept for the whole file
    for line in _json_lines(name, file, keys):
        own, parent = line.whole("chat_id"), line.whole("parent_chat_id")
        chat = chat_of[own] = chat_of.get(parent, own)
        prompt_tokens = line.tokens("input_length")
        ids = line.ids("hash_ids", prompt_tokens, 16)
        output_tokens = line.tokens("output_length")
        yield line, TraceRow(line.number("timestamp"), prompt_tokens, output_tokens, str(chat), ids, 16)


FORMATS: Mapping[str, Callable[[str, Iterator[str], set[str]], _Rows]] = {
    "azure": _azure,
    "mooncake": _mooncake,
    "burstgpt": _burstgpt,
    "qwen-bailian": _qwen_bailian,
}


# --- lines ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of a file, with its fields by name."""

    file: str
    number_of_line: int
    fields: Mapping[str, Any]

    def error(self, problem: str) -> SetupError:
        return SetupError(f"{self.file}:{self.number_of_line}: {problem}")

    def number(self, key: str) -> float:
        value = self.fields[key]
        try:
            number = math.nan if isinstance(value, bool | None) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not 0 <= number < math.inf:
            raise self.error(f"{key}: {value!r} is not allowed; it must be a number >= 0")
        return number

    def whole(self, key: str) -> int:
        """Return a whole number, possibly negative (a missing parent is -1)."""
        value = self.fields[key]
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(f"{key}: {value!r} is not a whole number")
        return value

    def tokens(self, key: str) -> int:
        number = self.number(key)
        if number != int(number) or number < 1:
            hint = " (0 stands for a request that failed: use the file without failures)" if number == 0 else ""
            raise self.error(f"{key}: {self.fields[key]!r} is not allowed; it must be a whole number above 0{hint}")
        if number > MOST_TOKENS:
            raise self.error(f"{key}: {self.fields[key]!r} is not allowed; it must be at most {MOST_TOKENS}")
        return int(number)

    def moment_s(self, key: str) -> float:
        text = self.fields[key]
        try:
            return datetime.fromisoformat(text).timestamp()
        except ValueError:
            raise self.error(f"{key}: {text!r} is not a date and time such as 2023-11-16 18:15:46.680590") from None

    def ids(self, key: str, prompt_tokens: int, block_tokens: int) -> tuple[int, ...]:
        ids, blocks = self.fields[key], -(-prompt_tokens // block_tokens)
        if not isinstance(ids, list) or not all(type(each) is int and 0 <= each < _LARGEST_ID for each in ids):
            raise self.error(f"{key}: must be a list of whole numbers >= 0")
        if len(ids) > blocks:
            filled = f"the {blocks} block{'s' * (blocks > 1)} of {block_tokens} that {prompt_tokens} tokens fill"
            raise self.error(f"{key}: {len(ids)} ids are more than {filled}")
        return tuple(ids)


def _csv(name: str, file: Iterator[str], needed: Sequence[str], optional: Sequence[str] = ()) -> Iterator[_Line]:
    rows = csv.reader(file)
    header = next(rows, [])
    _check_header(_Line(name, 1, {}), header)
    _check_names(_Line(name, 1, {}), header, needed, optional, "column")
    for row in rows:
        if not row:
            continue  # an empty line is no row
        line = _Line(name, rows.line_num, dict(zip(header, row, strict=False)))
        if len(row) != len(header):
            raise line.error(f"has {len(row)} fields; the header names {len(header)}: {', '.join(header)}")
        yield line


def _check_header(line: _Line, header: list[str]) -> None:
    """Name what a spreadsheet may have done to the first line."""
    for separator, shown in ((";", "semicolon"), ("\t", "tab")):
        if len(header) == 1 and separator in header[0]:
            raise line.error(f"the columns are separated by {shown}s; write commas")
    if "" in header:
        raise line.error(f"column {header.index('') + 1} has no name: is there a comma too many in each line?")


def _json_lines(
    name: str,
    file: Iterator[str],
    needed: Sequence[str],
    optional: Sequence[str] = (),
    unused: set[str] | None = None,
) -> Iterator[_Line]:
    """Yield one line per object. With `unused`, other keys are collected there, unless they look misspelt."""
    for number, text in enumerate(file, 1):
        if not text.strip():
            continue
        line = _Line(name, number, {})
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise line.error(f"is not JSON: {error}") from None
        if not isinstance(fields, dict):
            raise line.error(f"must be a JSON object, not {text.strip()[:40]}")
        known = [*needed, *optional]
        others = set() if unused is None else {key for key in fields if not difflib.get_close_matches(key, known, 1)}
        if unused is not None:
            unused |= others
        _check_names(line, [key for key in fields if key not in others], needed, optional, "key")
        yield replace(line, fields=fields)


def _check_names(line: _Line, names: list[str], needed: Sequence[str], optional: Sequence[str], word: str) -> None:
    allowed = ", ".join([*needed, *(f"[{each}]" for each in optional)])
    for each in names:
        if each not in needed and each not in optional:
            raise line.error(f"unknown {word} {each!r}; the format has {allowed}")
    for each in needed:
        if each not in names:
            raise line.error(f"the {word} {each!r} is missing; the format has {allowed}")
