"""Runs a notebook from the first cell to the last, and makes its outputs independent of machine and moment.

Outputs that differ from run to run belong in a cell tagged `measured`; here only incidental text goes: addresses of
objects, folders of this machine, names of temporary files, times of execution.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

from miniserve.course.notebook.notebooks import Notebook, dumps
from miniserve.course.notebook.source import Source
from miniserve.course.notebook.times import Took, watched_memory
from miniserve.errors import SetupError

CELL_LIMIT_S = 240.0
_SCRUBBED = (
    (re.compile(r"(?<= at )0x[0-9a-f]{6,}"), "0x..."),
    (re.compile(r"(?:/[^\s/'\"]+)*/ipykernel_\d+/\d+\.py"), "<cell>"),
)


def execute(notebook: Notebook, source: Source, folder: Path, root: Path) -> tuple[Notebook, Took]:
    """Run `notebook` in `folder`; return it with outputs, and what the run took.

    Raises: SetupError naming the source's line if a cell raises, never ends, or writes to stderr.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    node = nbformat.reads(dumps(notebook), as_version=4)  # type: ignore[no-untyped-call]
    took, started_s = Took(), time.perf_counter()
    at = _Progress(source, len(node.cells), took)
    client = NotebookClient(
        node,
        timeout=CELL_LIMIT_S,
        kernel_name="python3",
        extra_arguments=["--IPKernelApp.log_level=40"],  # otherwise it warns of TCP, here on loopback
        record_timing=False,
        coalesce_streams=True,
        store_widget_state=False,
        on_cell_start=at.show,
        on_cell_executed=at.executed,
        resources={"metadata": {"path": str(folder)}},
    )
    try:
        with watched_memory(took):
            client.execute()
    except CellExecutionError as error:
        last = "\n".join(f"    {line}" for line in f"{error.ename}: {error.evalue}".splitlines())
        raise SetupError(f"{at.where}: the cell raised\n{last}") from None
    except (CellTimeoutError, DeadKernelError) as error:
        raise SetupError(
            f"{at.where}: {type(error).__name__}: it ran for {CELL_LIMIT_S:g} s, or its kernel died"
        ) from None
    finally:
        at.end()
    ran = json.loads(json.dumps(node))
    _refuse_stderr(ran, source)
    _scrub(ran, source, root)
    took.seconds = time.perf_counter() - started_s
    return ran, took


class _Progress:
    """Knows which cell runs, shows it on a terminal, and records how long checks take."""

    def __init__(self, source: Source, cells: int, took: Took) -> None:
        self._source, self._cells, self._took = source, cells, took
        self._began_s = 0.0
        self._shown = sys.stderr.isatty()
        self.where = str(source.path)

    def show(self, cell: Any, cell_index: int) -> None:
        self.where = self._source.at(self._source.cells[cell_index])
        self._began_s = time.perf_counter()
        if self._shown:
            print(
                f"\r[{self._source.name}] cell {cell_index + 1} of {self._cells}: {cell.id:<40}",
                end="",
                file=sys.stderr,
            )

    def executed(self, cell: Any, cell_index: int, execute_reply: Any) -> None:
        if "check" in self._source.cells[cell_index].tags:
            self._took.checks_s.append(time.perf_counter() - self._began_s)

    def end(self) -> None:
        if self._shown:
            print("\r" + " " * 100 + "\r", end="", file=sys.stderr)


def _refuse_stderr(notebook: Notebook, source: Source) -> None:
    for cell, raw in zip(source.cells, notebook["cells"], strict=True):
        for output in raw.get("outputs", ()):
            if output.get("name") == "stderr" and "measured" not in cell.tags:
                text = output["text"].strip()[:400]
                raise SetupError(
                    f"{source.at(cell)}: the cell writes to stderr, but a solved notebook must not:\n    {text}"
                )


def _scrub(notebook: Notebook, source: Source, root: Path) -> None:
    for cell, raw in zip(source.cells, notebook["cells"], strict=True):
        raw["metadata"].pop("execution", None)
        clean = [_clean(output, str(root)) for output in raw.get("outputs", ())]
        if "nbval-check-output" in cell.tags and clean != raw["outputs"]:
            what = "an output that is compared holds an address, or a folder of this machine"
            raise SetupError(f"{source.at(cell)}: {what}; print something that is the same everywhere")
        if cell.is_code:
            raw["outputs"] = clean


def _clean(value: Any, root: str) -> Any:
    if isinstance(value, str):
        for pattern, instead in _SCRUBBED:
            value = pattern.sub(instead, value)
        return value.replace(root + "/", "").replace(root, ".")
    if isinstance(value, list):
        return [_clean(item, root) for item in value]
    if isinstance(value, dict):
        return {key: _clean(item, root) for key, item in value.items() if key != "transient"}
    return value
