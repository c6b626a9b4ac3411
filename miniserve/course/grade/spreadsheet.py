"""Reads and writes the tables that instructors open in a spreadsheet, where a text may pass for a formula.

Reads what Excel and its kin save: commas, semicolons or tabs, UTF-8 or UTF-16 with a byte-order mark, any case in
headings. Writes every cell in quotes.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from miniserve.errors import SetupError

_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_spreadsheet(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Return the rows of a table by lower-case heading, each with the line where it ends. Raises: SetupError."""
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-16" if raw[:2] in _WIDE else "utf-8-sig")
    except FileNotFoundError:
        raise SetupError(f"{path} does not exist") from None
    except OSError as error:
        raise SetupError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SetupError(f"{path}: {error}; save it as CSV in UTF-8") from None
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        headings = [heading.strip().casefold() for heading in next(reader, [])]
        rows = [(reader.line_num, dict(zip(headings, row, strict=False))) for row in reader if any(row)]
    except csv.Error as error:
        raise SetupError(f"{path}, line {reader.line_num}: {error}") from None
    return rows


def write_spreadsheet(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as CSV. Every cell is in quotes, so that another country's separator splits nothing."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(rows)
    return text.getvalue()


def quoted(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula."""
    return "'" + text if _FORMULA.match(text) else text


def unquoted(text: str) -> str:
    """Undo `quoted`."""
    return text[1:] if text[:1] == "'" and _FORMULA.match(text[1:]) else text
