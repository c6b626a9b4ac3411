"""A readable ledger: one table per dimension, and bar charts. The numbers come from `observe.cost`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from miniserve.observe import plots
from miniserve.observe.cost import DIMENSIONS, Dimension, Ledger, LedgerLine

_MOST_BARS = 10


def cost_table(ledger: Ledger, dimension: Dimension = "account") -> Table:
    """Return the lines of one dimension, most expensive first, and their sum. Amounts are in USD."""
    caption = _caption(ledger) if dimension == "account" else None
    table = Table(title=f"cost in USD, by {dimension}", caption=caption, caption_justify="left")
    table.add_column(dimension, no_wrap=True)
    idle = ("of which idle",) if dimension in ("model", "replica") else ()  # elsewhere idle time has its own line
    for heading in ("seconds", "cost", "share", *idle, "answers", "per 1,000", "per M tokens"):
        table.add_column(heading, justify="right")
    for line in (*ledger.by(dimension), ledger.total):
        if line.name == "total":
            table.add_section()
        table.add_row(*_cells(line, ledger, with_idle=bool(idle)))
    return table


def cost_figure(ledger: Ledger, dimensions: Sequence[Dimension] = DIMENSIONS) -> Figure:
    """Return a figure with a panel of bars for each dimension."""
    figure, axes = plots.grid(len(dimensions), _headline(ledger))
    for ax, dimension in zip(axes, dimensions, strict=True):
        _bars(ax, dimension, ledger.by(dimension))
    return figure


def _cells(line: LedgerLine, ledger: Ledger, with_idle: bool) -> tuple[str, ...]:
    return (
        line.name or "-",
        f"{line.seconds:,.0f}",
        _money(line.usd),
        f"{line.usd / ledger.usd:.1%}" if ledger.usd else "-",
        *([_money(line.idle_usd)] if with_idle else []),
        f"{line.answers:,}",
        _money(line.usd_per_answer * 1000),
        _money(line.usd_per_million_tokens),
    )


def _headline(ledger: Ledger) -> str:
    driver = ledger.biggest_driver()
    return "nothing was paid: the fleet's hardware has no price" if driver is None else str(driver)


def _caption(ledger: Ledger) -> str:
    cached, worth = ledger.cached_tokens, ledger.cached_worth_usd
    more = f"\n{cached:,} prompt tokens came from caches; computing them would have cost about {worth:,.4f} USD"
    return _headline(ledger) + (more if cached else "")


def _bars(ax: Axes, dimension: Dimension, lines: Sequence[LedgerLine]) -> None:
    """Draw the most expensive names, with idle time in grey at the end of each bar."""
    shown = [line for line in lines if line.usd > 0][:_MOST_BARS][::-1]
    idle = [line.idle_usd for line in shown]
    work = [line.usd - line.idle_usd for line in shown]
    ax.barh(range(len(shown)), work, color=plots.COLOURS[0], label="work")
    ax.barh(range(len(shown)), idle, left=work, color=plots.GREY, label="idle and starting")
    ax.set_yticks(range(len(shown)), [line.name or "-" for line in shown])
    ax.set(xlabel="USD", title=f"by {dimension}")
    ax.grid(axis="y", visible=False)
    ax.set_axisbelow(True)
    if dimension == "account":
        ax.legend(frameon=False, fontsize="small")


def _money(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}" if value >= 10 else f"{value:.4f}"
