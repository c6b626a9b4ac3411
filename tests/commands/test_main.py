"""`python -m miniserve`: the door. Help at once, one line for errors, nothing heavy imported on the way."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from importlib import import_module
from typing import Any

import pytest

from miniserve import __version__
from miniserve.__main__ import COMMANDS, main
from miniserve.errors import SetupError


def miniserve(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "miniserve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"miniserve {__version__}\n"


def test_an_unknown_command_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sevre"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("miniserve: there is no command 'sevre'")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [(SetupError("no room"), 2, "miniserve: no room\n"), (KeyboardInterrupt(), 130, "")],
)
def test_how_commands_end(
    error: BaseException, code: int, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from miniserve.commands import demo

    def fail(args: object) -> int:
        raise error

    monkeypatch.setattr(demo, "run", fail)
    assert main([]) == code
    assert capsys.readouterr().err == shown


@pytest.mark.parametrize("command", ["demo", "serve", "replica"])
def test_origins_of_browsers_are_named_one_by_one(command: str) -> None:
    parser = argparse.ArgumentParser()
    import_module(f"miniserve.commands.{command}").add_arguments(parser)
    needed = ["--replica", "http://x"] if command == "serve" else []
    assert parser.parse_args(needed).cors == []
    assert parser.parse_args([*needed, "--cors", "http://a", "--cors", "http://b"]).cors == ["http://a", "http://b"]


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"], ["replica", "--help"], ["serve", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    """Which is what makes it answer at once; a list of modules can be tested, a stopwatch on a busy machine cannot."""
    program = (
        "import sys\n"
        "from miniserve.__main__ import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'fastapi', 'uvicorn', 'pydantic', 'httpx', 'numpy', 'rich'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "usage: miniserve" in done.stdout


def test_all_that_a_gateway_runs_comes_without_torch() -> None:
    modules = [
        "miniserve.commands.demo",
        "miniserve.commands.serve",
        "miniserve.clients.ask",
        "miniserve.processes.stack",
    ]
    modules += ["miniserve.processes.memory", "miniserve.models.store", "miniserve.commands.live_table"]
    program = f"import importlib, sys\nfor name in {modules}: importlib.import_module(name)\n"
    program += "sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_module_can_be_run() -> None:
    done = miniserve("--version")
    assert (done.returncode, done.stdout) == (0, f"miniserve {__version__}\n")


def test_a_line_of_the_log_says_when() -> None:
    """In a process of its own: how a process logs is decided once."""
    code = (
        "import logging; from miniserve.commands.options import log_to_stderr; log_to_stderr('info'); "
        "logging.getLogger('miniserve.test').info('hello')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == ""
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO miniserve\.test: hello\n", done.stderr)
