"""A pytest plugin that writes down a full run: `python -m pytest -p full_record -m "full or not full"`.

The record says what each test of the long counts did (whatever it gave to `record_property`), how long it took, and on
which machine, versions and commit. It lies in data/results/, so that a claim in the README can be traced to a run.
Tests outside the `full` marker are only counted. A second run on the same day replaces the entries of the tests that it
ran and keeps the others, so the long counts may be run in parts; each entry says at which commit it was made.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "numpy", "transformers", "tokenizers", "fastapi", "openai", "hypothesis", "schemathesis", "pytest")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record-to", type=Path, help="the record's file (default: data/results/<date>-full.json, UTC date)"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(FullRecord(config.getoption("--record-to")), "full-record")


class FullRecord:
    """Collects the reports of one session and writes them at its end."""

    def __init__(self, target: Path | None) -> None:
        self.started = datetime.datetime.now(datetime.UTC)
        self.target = target or ROOT / "data" / "results" / f"{self.started:%Y-%m-%d}-full.json"
        self.full_tests: dict[str, dict[str, Any]] = {}
        self.outcomes: dict[str, str] = {}
        self.skip_reasons: dict[str, str] = {}
        self.ended: set[str] = set()  # an interrupted test has passed its setup, and proves nothing

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # One test has up to three reports (setup, call, teardown): the worst outcome counts, the times add up.
        rank = ["passed", "skipped", "failed"]
        outcome = max(self.outcomes.get(report.nodeid, "passed"), report.outcome, key=rank.index)
        self.outcomes[report.nodeid] = outcome
        if report.when == "teardown":
            self.ended.add(report.nodeid)
        if report.skipped and isinstance(report.longrepr, tuple):
            self.skip_reasons[report.nodeid] = str(report.longrepr[2])
        if "full" in report.keywords:
            entry = self.full_tests.setdefault(report.nodeid, {"outcome": "", "duration_s": 0.0, "counts": {}})
            entry["outcome"] = outcome
            entry["duration_s"] = round(entry["duration_s"] + report.duration, 3)
            entry["counts"].update(report.user_properties)

    def record(self, exit_status: int) -> dict[str, Any]:
        """Return the record as JSON-ready values. Times are seconds."""
        finished = datetime.datetime.now(datetime.UTC)
        return {
            "started_utc": self.started.isoformat(timespec="seconds"),
            "duration_s": round((finished - self.started).total_seconds(), 1),
            "exit_status": int(exit_status),
            "commit": commit(),
            "machine": machine(),
            "versions": versions(),
            "totals": dict(Counter(self.outcomes.values())),
            "full": {
                **self.earlier(),
                **{
                    name: {**entry, "commit": commit()} for name, entry in self.full_tests.items() if name in self.ended
                },
            },
            "skipped": self.skip_reasons,
        }

    def earlier(self) -> dict[str, Any]:
        """Return the entries of an earlier run that wrote to the same file."""
        if not self.target.is_file():
            return {}
        entries: dict[str, Any] = json.loads(self.target.read_text(encoding="utf-8"))["full"]
        return entries

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if not self.outcomes:
            return  # nothing ran (--collect-only, a mistyped name): keep the record that is there
        self.target.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.record(exitstatus), indent=2, sort_keys=True, default=str)
        self.target.write_text(text + "\n", encoding="utf-8")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        seconds = sum(entry["duration_s"] for entry in self.full_tests.values())
        where = f"recorded in {self.target}" if self.outcomes else "nothing recorded"
        terminalreporter.write_line(f"{len(self.full_tests)} full tests, {seconds:.0f} s, {where}")


def versions() -> dict[str, str]:
    """Return the versions that a result may depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def machine() -> dict[str, str | int]:
    """Name the processor and how many of its cores this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"cpu": cpu_name(), "cores": cores, "system": f"{platform.system()} {platform.machine()}"}


def cpu_name() -> str:
    """Return the processor's name as the kernel gives it, or what platform knows where there is no /proc."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def commit() -> str:
    """Return the commit that was tested, with a mark when the working tree differed from it; "unknown" without git."""
    try:
        head = git("rev-parse", "HEAD")
        return head + (" with uncommitted changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()
