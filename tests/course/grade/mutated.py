"""Notebooks as nobody would write them: damaged, rearranged, misnamed, at random. For the fuzzer of the grader."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from random import Random

from course.grade import toy
from course.grade.toy import Notebook

TEXTS = (
    "", " ", "\0", "x = = 1", "...", "\ufeffx = 1", "%%time\nx = 1", "%%bash\nls", "!ls", "?x", "x = 1\r\ny = 2\r",
    "é = 1",
    "requests = float('nan')", "requests = 10**400", "waits = [[]] * 9", "waits = 1", "reason = None",
    "LeastQueue = 3",
    "in_system = 1", "del p", "raise SystemExit", "exit()", "1 / 0", "input()", "x = " + "(" * 150 + ")" * 150,
    "# only a comment", "from math import *", "class requests: pass", "import sys; sys.stdout = None", "\u2028x = 1",
)  # fmt: skip
VALUES = (None, True, 0, -1, 1.5, 1e308, "", "x", [], {}, [[]], [None], {"x": []}, ["a", 1], "\ud800")
NAMES = (
    "90_toy.ipynb", "90_toy (1).ipynb", "my final.ipynb", "90_TOY.IPYNB", "90_toy.ipynb.txt", "x.ipynb", "90.ipynb",
    "copy of 90_toy.ipynb", "91_other.ipynb", "toy.json", "90_toy.ipynb~", "..ipynb", "90 toy é.ipynb",
)  # fmt: skip


def mutate(notebook: Notebook, rng: Random) -> bytes:
    """Return the bytes of a notebook after one to four mutations."""
    made = copy.deepcopy(notebook)
    for _ in range(rng.randint(1, 4)):
        rng.choice(_OF_CELLS)(made, rng)
    text = json.dumps(made, ensure_ascii=rng.random() < 0.5)
    raw = text.encode("utf-8", "surrogatepass")
    return rng.choice(_OF_BYTES)(raw, rng) if rng.random() < 0.25 else raw


def hand_in(folder: Path, learner: str, raw: bytes, rng: Random) -> str:
    """Put the bytes where a learner might; return the path below `folder`."""
    inside = rng.choice(("", "", "", "week 3/", "a/b/c/"))
    name = rng.choice(NAMES) if rng.random() < 0.5 else NAMES[0]
    path = folder / learner / inside / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)
    return f"{learner}/{inside}{name}"


def right(chapters: Path) -> Notebook:
    """Return the toy chapter with its right answers."""
    return toy.answered(chapters, toy.RIGHT)


# --- mutations of cells -----------------------------------------------------------------------------------------------


def _cell(made: Notebook, rng: Random) -> dict[str, object]:
    cells = made.get("cells")
    found = [cell for cell in cells if isinstance(cell, dict)] if isinstance(cells, list) else []
    return rng.choice(found) if found else {}


def _other_text(made: Notebook, rng: Random) -> None:
    _cell(made, rng)["source"] = rng.choice(TEXTS)


def _longer_text(made: Notebook, rng: Random) -> None:
    cell = _cell(made, rng)
    parts = [rng.choice(TEXTS), str(cell.get("source", ""))]
    rng.shuffle(parts)
    cell["source"] = "\n".join(parts)


def _cut_text(made: Notebook, rng: Random) -> None:
    cell = _cell(made, rng)
    text = str(cell.get("source", ""))
    cell["source"] = text[: rng.randint(0, len(text))]


def _other_value(made: Notebook, rng: Random) -> None:
    cell = _cell(made, rng)
    cell[rng.choice(("source", "id", "cell_type", "metadata", "outputs", "execution_count"))] = rng.choice(VALUES)


def _lost_key(made: Notebook, rng: Random) -> None:
    cell = _cell(made, rng)
    cell.pop(rng.choice(("source", "id", "cell_type", "metadata", "outputs")), None)


def _arranged(made: Notebook, rng: Random) -> None:
    cells = made.get("cells")
    if not isinstance(cells, list) or not cells:
        return
    at, to = rng.randrange(len(cells)), rng.randrange(len(cells))
    change = rng.choice(("twice", "gone", "moved", "all gone", "no ids", "shuffled"))
    if change == "twice":
        cells.insert(to, copy.deepcopy(cells[at]))
    elif change == "gone":
        del cells[at]
    elif change == "moved":
        cells.insert(to, cells.pop(at))
    elif change == "shuffled":
        rng.shuffle(cells)
    elif change == "no ids":
        made["cells"] = [
            {k: v for k, v in cell.items() if k != "id"} if isinstance(cell, dict) else cell for cell in cells
        ]
    elif rng.random() < 0.2:
        cells.clear()


def _other_top(made: Notebook, rng: Random) -> None:
    made[rng.choice(("metadata", "nbformat", "nbformat_minor", "more"))] = rng.choice(VALUES)
    if rng.random() < 0.1:
        made["cells"] = rng.choice(VALUES)


_OF_CELLS: tuple[Callable[[Notebook, Random], None], ...] = (
    _other_text, _other_text, _longer_text, _longer_text, _cut_text, _other_value, _lost_key, _arranged, _arranged,
    _other_top,
)  # fmt: skip


# --- mutations of bytes -----------------------------------------------------------------------------------------------


def _cut(raw: bytes, rng: Random) -> bytes:
    return raw[: rng.randint(0, len(raw))]


def _flipped(raw: bytes, rng: Random) -> bytes:
    changed = bytearray(raw)
    for _ in range(rng.randint(1, 20)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _marked(raw: bytes, _: Random) -> bytes:
    return b"\xef\xbb\xbf" + raw


def _wide(raw: bytes, _: Random) -> bytes:
    return raw.decode("utf-8", "replace").encode("utf-16")


def _another(raw: bytes, rng: Random) -> bytes:
    return rng.choice(
        (b"", b"[]", b"null", b"{}", b"PK\x05\x06" + b"\0" * 18, raw + raw, b"[" * 5_000, b'{"cells":' * 2_000)
    )


_OF_BYTES: tuple[Callable[[bytes, Random], bytes], ...] = (_cut, _flipped, _marked, _wide, _another)
