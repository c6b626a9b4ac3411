"""Tables and numbers of the notebooks: one formatter, so that a result prints the same everywhere and is comparable.

Takes columns, returns HTML with a caption and header cells, or plain text. Knows no experiment.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from IPython.display import display

Columns = Mapping[str, Sequence[object]]


def as_text(value: object, digits: int = 3) -> str:
    """Return a value as text: integers with thousands separators, others to `digits` significant digits."""
    if hasattr(value, "item"):  # numpy's
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if value != 0 and not 1e-4 <= abs(value) < 1e9:
        return f"{value:.{digits - 1}e}"
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 10 ** (digits - 1) else f"{value:#.{digits}g}"


def table(columns: Columns, caption: str) -> None:
    """Display a table. Raises: ValueError if the columns differ in length."""
    display(  # type: ignore[no-untyped-call]
        {"text/html": html_table(columns, caption), "text/plain": f"{caption}\n{plain_table(columns)}"}, raw=True
    )


def show_choices(items: Mapping[str, str], options: Mapping[str, str]) -> None:
    """Print what is to be sorted, then what each option means."""
    print(*(f"{key}: {text}" for key, text in items.items()), "", sep="\n")
    print(*(f"{option!r}: {meaning}" for option, meaning in options.items()), sep="\n")


def html_table(columns: Columns, caption: str) -> str:
    """Return the table as HTML: a caption, a header row, and a header cell in each row."""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in columns)
    body = "\n".join(_html_row(row) for row in _rows(columns))
    return (
        f"<table><caption>{html.escape(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody></table>"
    )


def _html_row(row: Sequence[str]) -> str:
    first, *others = (html.escape(cell) for cell in row)
    return f'<tr><th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in others) + "</tr>"


def plain_table(columns: Columns) -> str:
    """Return the table as aligned text."""
    rows = [tuple(columns), *_rows(columns)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
    return "\n".join(_plain_row(row, widths) for row in rows)


def _plain_row(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = row
    cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
    return "  ".join(cells).rstrip()


def _rows(columns: Columns) -> list[tuple[str, ...]]:
    lengths = {name: len(values) for name, values in columns.items()}
    if not lengths or len(set(lengths.values())) > 1:
        raise ValueError(f"a table needs columns of one length, not {lengths}")
    return list(zip(*([as_text(value) for value in values] for values in columns.values()), strict=True))
