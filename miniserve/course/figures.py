"""Figures that everyone can read: one light card for both themes, words beside colours, alternative text always.

    figure, ax = course.new_figure("Latency of one day", x="latency (s)", y="share of requests")
    ax.plot(xs, ys, **course.line_style(0), label="all requests")
    course.show(figure, alt="Half of the requests ...", data={"hour": hours, "p99 (s)": p99s})

The picture is an SVG with `<title>` and `<desc>`, shown as an `<img>` with an alt attribute: JupyterLab shows that even
in a notebook that it doesn't trust yet, where it would strip a bare SVG. The same figure gives the same bytes. Knows
matplotlib's object interface and IPython's display; no experiment.
"""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from miniserve.course.tables import html_table, plain_table

CARD, INK, GRID = "#ffffff", "#1a1a1a", "#dddddd"
# Okabe and Ito's hues, which colour-blind readers can tell apart, each darkened to 4.5:1 or more on the card.
BLUE, VERMILION, GREEN, PURPLE, OCHRE, BLACK = "#0072b2", "#b34f00", "#007a59", "#a34d7d", "#8a6000", "#000000"
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, OCHRE, BLACK)
_LINES = ("-", "--", ":", "-.", (0, (6, 2, 1, 2, 1, 2)), (0, (1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "x")
_HATCHES = ("", "//", "..", "xx", "\\\\", "++")
MAX_ROWS = 12  # with more points it is a picture, not a table

_RC: Any = {
    "svg.hashsalt": "miniserve",  # or the ids in the file are random
    "svg.fonttype": "none",  # letters stay letters: smaller, and searchable
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],  # it comes with matplotlib
}


def line_style(i: int, markers: bool = False) -> dict[str, Any]:
    """Return what sets curve `i` apart: colour and line style, and a marker if there are few points."""
    style = {"color": COLOURS[i % len(COLOURS)], "linestyle": _LINES[i % len(_LINES)], "linewidth": 1.8}
    return style | ({"marker": _MARKERS[i % len(_MARKERS)], "markersize": 6} if markers else {})


def bar_style(i: int) -> dict[str, Any]:
    """Return what sets bars `i` apart: colour and hatch."""
    return {"facecolor": COLOURS[i % len(COLOURS)], "hatch": _HATCHES[i % len(_HATCHES)], "edgecolor": CARD}


def new_figure(
    title: str, *, x: str, y: str, panels: int = 1, size: tuple[float, float] = (7.2, 3.4)
) -> tuple[Figure, Any]:
    """Return a figure on a light card and its `Axes`; with several panels, a list of them side by side.

    `x` and `y` are the labels, with units: "latency (s)". Only the first panel has the y label; all share the y axis.
    Raises: ValueError if the title or a label is empty, because nobody can read a figure without them.
    """
    for name, text in (("title", title), ("x", x), ("y", y)):
        if not text.strip():
            raise ValueError(f"a figure needs {name}: labels say what it draws, and in which unit")
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=size, layout="constrained", facecolor=CARD)
        FigureCanvasSVG(figure)
        axes = figure.subplots(1, panels, sharey=True, squeeze=False)[0].tolist()
        for ax in axes:
            _dress(ax, x)
        axes[0].set_ylabel(y, color=INK)
        if panels == 1:
            axes[0].set_title(title, color=INK, loc="left", fontsize=11)
        else:
            figure.suptitle(title, color=INK, x=0.01, ha="left", fontsize=11)
    return figure, axes[0] if panels == 1 else axes


def _dress(ax: Axes, x: str) -> None:
    ax.set_facecolor(CARD)
    ax.set_xlabel(x, color=INK)
    ax.tick_params(colors=INK)
    ax.grid(color=GRID, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def show(figure: Figure, alt: str, data: Mapping[str, Sequence[object]] | None = None) -> None:
    """Display a figure. `alt` says in words what it shows, with the numbers that matter.

    `data` is the drawn series, column by column; up to 12 rows appear as a table that opens under the picture.
    Raises: ValueError if `alt` is empty, or the columns differ in length.
    """
    if not alt.strip():
        raise ValueError("a figure needs alt text: say what it shows, with its numbers, for readers who can't see it")
    alt = " ".join(alt.split())
    svg = base64.b64encode(svg_text(figure, alt).encode()).decode()
    picture = f'<img src="data:image/svg+xml;base64,{svg}" alt="{html.escape(alt)}">'
    plain = f"Figure: {alt}"
    if data is not None and len(next(iter(data.values()), ())) <= MAX_ROWS:
        table = html_table(data, caption="The numbers of this figure")
        picture += f"\n<details><summary>The numbers of this figure</summary>\n{table}\n</details>"
        plain += "\n" + plain_table(data)
    display({"text/html": picture, "text/plain": plain}, raw=True)  # type: ignore[no-untyped-call]


def svg_text(figure: Figure, alt: str) -> str:
    """Return the figure as SVG, with `alt` as its description; the same figure gives the same text."""
    buffer = io.StringIO()
    with matplotlib.rc_context(_RC):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), svg)  # a hundredth of a point
    title, desc = html.escape(_title(figure) or alt.partition(". ")[0]), html.escape(alt)
    head = f'role="img" aria-labelledby="t d"><title id="t">{title}</title><desc id="d">{desc}</desc>'
    return re.sub(r">", lambda _: f" {head}", svg, count=1)


def _title(figure: Figure) -> str:
    titles = [figure.get_suptitle(), *(ax.get_title(loc) for ax in figure.axes for loc in ("left", "center"))]
    return next((title for title in titles if title), "")
