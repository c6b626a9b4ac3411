"""The gate's parts, together, are the whole test suite, and a part that fails makes the gate fail."""

from __future__ import annotations

import sys
from pathlib import Path

import gate
import pytest

TESTS = Path(__file__).resolve().parent


def test_every_test_file_is_in_exactly_one_part() -> None:
    parts = gate.parts_of(())
    named = [path for name in ("course", "live") for path in parts[name] if path.startswith("tests/")]
    ignored = [option.removeprefix("--ignore=") for option in parts["others"] if option.startswith("--ignore=")]

    assert sorted(named) == sorted(ignored), "what the third part leaves out is what the other two run"
    assert len(set(named)) == len(named)
    assert all((TESTS.parent / path).is_dir() for path in named)
    assert parts["others"][-1] == "tests"


def test_with_options_one_pytest_gets_them_and_the_rest_follows() -> None:
    parts = gate.parts_of(["-k", "scheduler"])

    assert parts["tests"][-2:] == ["-k", "scheduler"]
    assert list(parts) == ["tests", "notebooks", "check"]


@pytest.mark.parametrize(("codes", "expected"), [((0, 0, 0), 0), ((0, 3, 0), 1)])
def test_one_part_that_fails_makes_the_gate_fail_and_keeps_no_other_from_running(
    codes: tuple[int, ...], expected: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "import sys; print('a line'); print('another', file=sys.stderr); sys.exit({})"
    parts = {f"part{i}": [sys.executable, "-c", said.format(code)] for i, code in enumerate(codes)}
    monkeypatch.setattr(gate, "parts_of", lambda options: parts)

    assert gate.main([]) == expected

    lines = capsys.readouterr().out.splitlines()
    for i, code in enumerate(codes):
        mine = [line.removeprefix(f"[part{i}] ") for line in lines if line.startswith(f"[part{i}]")]
        assert sorted(mine[:2]) == ["a line", "another"]
        assert mine[2].startswith("passed after" if code == 0 else f"FAILED with code {code} after")
