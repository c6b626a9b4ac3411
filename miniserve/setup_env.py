"""Before anything else: create the environment that everything runs in.

`python3 -m miniserve.setup_env` needs only Python 3.11 and its standard library. It creates `.venv`, installs this
project into it in editable mode, and leaves a stamp keyed on what it installed from, so a second run takes no time.
After an interruption, simply run it again: pip keeps what it has downloaded, and the stamp is written last.

It knows pyproject.toml and pip, but not what the packages are for. Nothing in miniserve imports it.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import platform
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

from miniserve.errors import SetupError

MIN_PYTHON = (3, 11)
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"  # PyTorch's own public index of CPU builds
STAMP = ".miniserve-setup"
LOG = "setup.log"
HEARTBEAT_S = 20.0  # a silent terminal for longer than this looks like a hang
TAIL_LINES = 25
PIP = ["-m", "pip", "--disable-pip-version-check", "--no-input"]


def say(text: str) -> None:
    """Print one line at once, even if stdout is a pipe (a CI log)."""
    print(f"[setup] {text}", flush=True)


def default_extras(system: str, machine: str) -> list[str]:
    """Return the extras that the test suite needs on this kind of machine.

    Triton has wheels only for Linux, and its interpreter is tested on x86-64; that needs no GPU.
    """
    on_linux_x86 = system == "Linux" and machine.lower() in ("x86_64", "amd64")
    return ["test", "notebooks", *(["gpu"] if on_linux_x86 else [])]


def stamp_key(root: Path, extras: list[str], python_version: str) -> str:
    """Hash what the environment was made from: if any of it changes, the environment is updated.

    The folder itself counts, because an editable install points at it.
    """
    digest = hashlib.sha256((root / "pyproject.toml").read_bytes())
    for part in (str(root), ",".join(extras), python_version):
        digest.update(b"\0" + part.encode())
    return digest.hexdigest()


def torch_pin(root: Path) -> str:
    """Return pyproject.toml's own requirement on torch, such as `torch==2.13.0`."""
    with (root / "pyproject.toml").open("rb") as file:
        dependencies = tomllib.load(file)["project"]["dependencies"]
    pins = [str(line) for line in dependencies if line.startswith("torch==")]
    if len(pins) != 1:
        raise SetupError(f"pyproject.toml should pin torch exactly once (torch==X.Y.Z), found {len(pins)} such lines")
    return pins[0]


def sees_nvidia_gpu() -> bool:
    """Return whether an NVIDIA driver is loaded or its tool is on the PATH."""
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def venv_python(venv: Path) -> Path:
    """Return where the environment's own Python is, or will be."""
    return venv / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def probe(python: Path) -> str | None:
    """Return the version of `python` if it runs, is new enough and has pip; otherwise None."""
    script = "import sys, pip; print('%d.%d.%d' % sys.version_info[:3]) if sys.version_info >= (3, 11) else sys.exit(1)"
    try:
        done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def refuse_unfit_python() -> None:
    """Raise SetupError, saying what to install, if this Python cannot create an environment."""
    found = platform.python_version()
    if sys.version_info < MIN_PYTHON:
        raise SetupError(f"miniserve needs Python 3.11 or newer; {sys.executable} is Python {found}")
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
        raise SetupError(
            f"Python {found} ({sys.executable}) has no {' and no '.join(missing)} module, so it cannot create .venv. "
            f"On Debian or Ubuntu: sudo apt install {package}. Elsewhere, use another: make setup PYTHON=..."
        )


def make_venv(venv: Path) -> Path:
    """Create the environment unless a working one exists, and return its Python."""
    python = venv_python(venv)
    if probe(python):
        return python
    refuse_unfit_python()
    if venv.exists():
        say(f"{venv.name} is incomplete or its Python is gone: recreating it")
    say(f"creating {venv.name} with Python {platform.python_version()} (a few seconds)")
    command: list[str | Path] = [sys.executable, "-m", "venv", "--clear", venv]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise SetupError(f"creating {venv} failed:\n{tail(done.stdout + done.stderr)}")
    return python


def tail(text: str, lines: int = TAIL_LINES) -> str:
    """Return the last lines of a program's output, indented."""
    kept = [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]
    return "\n".join(f"    {line}" for line in kept)


def last_line(log: Path) -> str:
    """Return the log's newest line that is not a warning, cut to fit a terminal."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = file.read().decode(errors="replace").splitlines()
    telling = [line.strip() for line in lines if line.strip() and "WARNING" not in line]
    return telling[-1][:100] if telling else "starting"


def run_logged(command: list[str | Path], log: Path, cwd: Path, heartbeat_s: float = HEARTBEAT_S) -> None:
    """Run a program with its output in a file; report progress now and then, and show the file's end if it fails."""
    started_s = time.monotonic()
    with log.open("ab") as sink:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, cwd=cwd)
        try:
            while True:
                try:
                    status = process.wait(heartbeat_s)
                    break
                except subprocess.TimeoutExpired:
                    say(f"  {time.monotonic() - started_s:4.0f} s: {last_line(log)}")
        finally:
            if process.poll() is None:  # Ctrl-C here: do not leave pip running in the background
                process.terminate()
                process.wait()
    if status != 0:
        raise SetupError(
            f"pip failed with exit code {status}. Its last lines:\n{tail(log.read_text(errors='replace'))}\n"
            f"The whole output is in {log}. Run the same command again to continue from here."
        )


def torch_notice(torch_index: str | None) -> str | None:
    """Return the hint that a Linux user without a GPU needs before downloading several GB, or None."""
    if torch_index or sys.platform != "linux" or sees_nvidia_gpu():
        return None
    return (
        "no NVIDIA GPU found: if pip's usual index offers torch's CUDA build, that is several GB; "
        f"`make setup TORCH_INDEX={CPU_WHEELS}` gets the CPU build instead"
    )


def has_torch(python: Path) -> bool:
    """Return whether the environment has torch, without the seconds it takes to import it."""
    script = "import importlib.util as u, sys; sys.exit(u.find_spec('torch') is None)"
    return subprocess.run([python, "-c", script], check=False).returncode == 0


def install(python: Path, root: Path, extras: list[str], torch_index: str | None) -> None:
    """Install torch from its own index if one is given, then this project with its extras."""
    log = python.parents[1] / LOG
    log.unlink(missing_ok=True)
    pip: list[str | Path] = [python, *PIP, "install", "--no-user", "--progress-bar", "off", "--no-warn-script-location"]
    if not has_torch(python):
        if notice := torch_notice(torch_index):
            say(notice)
        if torch_index:
            say(f"installing {torch_pin(root)} from {torch_index}")
            run_logged([*pip, "--extra-index-url", torch_index, torch_pin(root)], log, root)
    target = f".[{','.join(extras)}]"
    say(f"installing {target} into {python.parents[1].name}: about 2 minutes on a 2-core machine once the packages are")
    say("  downloaded, and 3 GB of disk; Ctrl-C is safe, and the next run continues from there")
    run_logged([*pip, "--editable", target], log, root)


@contextlib.contextmanager
def one_at_a_time(root: Path) -> Iterator[None]:
    """Hold a lock on pyproject.toml, so that two terminals do not install into the same environment."""
    if sys.platform == "win32":  # no flock, and no make: the command is typed by hand
        yield
        return
    import fcntl

    with (root / "pyproject.toml").open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another setup of this folder is running: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield  # the system releases the lock with the file, even if this process is killed


def is_current(root: Path, venv: Path, extras: list[str]) -> bool:
    """Return whether the environment runs and was made from exactly this pyproject.toml."""
    version = probe(venv_python(venv))
    stamp = venv / STAMP
    return version is not None and stamp.is_file() and stamp.read_text() == stamp_key(root, extras, version)


def setup(root: Path, venv: Path, torch_index: str | None = None) -> None:
    """Bring the environment up to date; do nothing if it is. Raises: SetupError that says what to do."""
    extras = default_extras(platform.system(), platform.machine())
    with one_at_a_time(root):
        if is_current(root, venv, extras):
            if torch_index:
                say(f"{venv.name} is up to date; another build of torch needs a new one: rm -r {venv.name} first")
            return
        started_s = time.monotonic()
        python = make_venv(venv)
        (venv / STAMP).unlink(missing_ok=True)
        install(python, root, extras, torch_index)
        version = probe(python)
        assert version is not None, "an environment that has just installed packages must run"
        (venv / STAMP).write_text(stamp_key(root, extras, version))
        say(f"done in {time.monotonic() - started_s:.0f} s: {venv.name} is ready")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 0 if the environment is ready, 2 if that is impossible, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python3 -m miniserve.setup_env", description="Create .venv for this project."
    )
    parser.add_argument("--torch-index", default="", metavar="URL", help=f"package index for torch, e.g. {CPU_WHEELS}")
    options = parser.parse_args(argv)
    root = Path(__file__).resolve().parents[1]
    try:
        setup(root, root / ".venv", options.torch_index or None)
    except SetupError as error:
        print(f"miniserve setup: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nminiserve setup: stopped; run it again to continue from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
