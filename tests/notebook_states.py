"""A pytest plugin beside nbval, so that running the notebooks once also says what their checks found.

    python -m pytest -p notebook_states --nbval-lax --nbval-current-env chapters solutions

nbval sees whether a cell raises. This adds: in a solved notebook each check cell says CORRECT (or NOTED, for a text
that a person reads); in a learner's notebook that nobody has touched, each says NOT TRIED. One that a learner works in
may say anything.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
from nbval.plugin import IPyNbCell

from miniserve.course.notebook.notebooks import loads, states_in, untouched

SOLVED, UNTOUCHED = {"CORRECT", "NOTED"}, {"NOT TRIED"}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    yield
    if isinstance(item, IPyNbCell) and "check" in item.cell.metadata.get("tags", ()):
        expected = states_expected(item.path)
        told = [state for output in item.test_outputs for _, state in states_in(output)]
        if expected and (len(told) != 1 or told[0] not in expected):
            pytest.fail(f"{item.cell.id} says {told or 'nothing'}; expected is {' or '.join(sorted(expected))}", False)


def states_expected(path: Path) -> set[str]:
    """Return what the check cells of a notebook may say; empty if that is the learner's affair."""
    notebook = loads(path)
    if "made_from" in notebook["metadata"].get("miniserve", {}):
        return SOLVED
    return UNTOUCHED if untouched(notebook) else set()
