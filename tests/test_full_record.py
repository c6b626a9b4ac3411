"""The record of a full run, and programs that tests need: what they write down, and when they skip or fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from requirements_probe import require_program

TESTS = Path(__file__).resolve().parent

SUITE = """
import pytest

@pytest.mark.full
def test_counts(record_property):
    record_property("requests", 10_000)
    record_property("differences", 0)

@pytest.mark.full
def test_breaks(record_property):
    record_property("requests", 3)
    assert 1 + 1 == 3

@pytest.mark.full
def test_cannot_run_here():
    pytest.skip("no GPU")

@pytest.fixture
def leaky():
    yield
    raise RuntimeError("after the test")

@pytest.mark.full
def test_passes_but_leaves_a_mess(leaky):
    pass

def test_short():
    pass
"""


def run_suite(folder: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Run the little suite above under the plugin, in a pytest of its own."""
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = full: x\naddopts = -q -p no:cacheprovider -m 'not full'\n")
    (folder / "test_suite.py").write_text(SUITE)
    target = folder / "results" / "record.json"
    command = [sys.executable, "-m", "pytest", "-p", "full_record", "--record-to", str(target), *arguments]
    # Other plugins only cost seconds here.
    environment = dict(os.environ, PYTHONPATH=str(TESTS), PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment), target


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    done, target = run_suite(tmp_path_factory.mktemp("suite"), "-m", "full or not full")
    assert "4 full tests" in done.stdout, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(target.read_text())
    return found


def test_each_full_test_has_its_counts_outcome_and_time(record: dict[str, Any]) -> None:
    full = {name.split("::")[1]: entry for name, entry in record["full"].items()}

    assert full["test_counts"]["counts"] == {"requests": 10_000, "differences": 0}
    assert full["test_counts"]["outcome"] == "passed"
    assert full["test_breaks"]["outcome"] == "failed"
    assert full["test_breaks"]["counts"] == {"requests": 3}
    assert full["test_cannot_run_here"]["outcome"] == "skipped"
    assert all(entry["duration_s"] >= 0 for entry in full.values())
    assert "test_short" not in full


def test_a_failing_teardown_is_not_recorded_as_passed(record: dict[str, Any]) -> None:
    assert record["full"]["test_suite.py::test_passes_but_leaves_a_mess"]["outcome"] == "failed"


def test_the_totals_count_every_test_and_skips_have_their_reason(record: dict[str, Any]) -> None:
    assert record["totals"] == {"passed": 2, "failed": 2, "skipped": 1}
    assert record["exit_status"] == 1
    assert record["skipped"] == {"test_suite.py::test_cannot_run_here": "Skipped: no GPU"}


def test_the_record_says_on_what_it_was_made(record: dict[str, Any]) -> None:
    assert record["machine"]["cpu"]
    assert record["machine"]["cores"] >= 1
    assert record["versions"]["pytest"] == pytest.__version__
    assert record["versions"]["python"] == sys.version.split()[0]
    assert record["commit"]


def test_a_run_that_ran_nothing_leaves_the_old_record_alone(tmp_path: Path) -> None:
    _, target = run_suite(tmp_path, "-k", "test_short")
    before = target.read_text()

    run_suite(tmp_path, "-k", "no_such_test")

    assert target.read_text() == before


def test_a_run_in_parts_keeps_what_the_earlier_parts_counted(tmp_path: Path) -> None:
    run_suite(tmp_path, "-m", "full", "-k", "test_counts")
    _, target = run_suite(tmp_path, "-m", "full", "-k", "test_breaks")
    full = json.loads(target.read_text())["full"]

    assert {name.split("::")[1]: entry["outcome"] for name, entry in full.items()} == {
        "test_counts": "passed",
        "test_breaks": "failed",
    }
    assert all(entry["commit"] for entry in full.values())


# ---- programs from outside ----


def test_a_program_that_is_there_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "chromium-browser"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert require_program("chromium") == str(program)


def test_without_the_program_a_test_skips_and_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("MINISERVE_REQUIRE", "chromium")

    with pytest.raises(pytest.skip.Exception, match="apt install prometheus"):
        require_program("promtool")


def test_where_the_program_is_promised_its_absence_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("MINISERVE_REQUIRE", "chromium, promtool")

    with pytest.raises(pytest.fail.Exception, match="promtool is not on the PATH"):
        require_program("promtool")


def test_a_misspelt_promise_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINISERVE_REQUIRE", "prometool")

    with pytest.raises(ValueError, match="prometool"):
        require_program("promtool")
