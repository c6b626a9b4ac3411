"""What `make test` runs: the tests in three parts, the notebooks and `make check`, two of these at a time.

    python tests/gate.py                    everything that a change must pass
    python tests/gate.py -k scheduler       these options go to one pytest; the notebooks and the checks follow

Much of a test's time is spent waiting: for a process to start, for a kernel, for a deadline. Two at a time therefore
take not much more than half as long. The longest part comes first, and whoever is free takes the next. Each line is
preceded by the name of its part.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIVE = ("api", "clients", "commands", "drills", "gateway", "operations", "processes", "replica")  # processes, sockets
Parts = dict[str, list[str]]


def parts_of(options: Sequence[str]) -> Parts:
    """Return the commands of the gate by name, longest first. No test is in two parts, or in none."""
    pytest = [sys.executable, "-m", "pytest"]
    make = ["make", "--no-print-directory"]
    rest = {"notebooks": [*make, "notebooks", "ARGS="], "check": [*make, "check"]}
    if options:
        return {"tests": [*pytest, *options], **rest}
    live, course = [f"tests/{name}" for name in LIVE], "tests/course"
    others = [f"--ignore={path}" for path in (*live, course)]
    return {"course": [*pytest, course], "live": [*pytest, *live], "others": [*pytest, *others, "tests"], **rest}


def run_all(parts: Parts, at_a_time: int) -> dict[str, int]:
    """Run the parts, `at_a_time` of them at once; return their exit codes."""
    threads = max(1, (os.cpu_count() or 1) // at_a_time)  # torch's own, which otherwise fight for the cores
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ, "PYTHONUNBUFFERED": "1"}
    with ThreadPoolExecutor(at_a_time) as pool:
        codes = pool.map(lambda part: _run(*part, environment), parts.items())
        return dict(zip(parts, codes, strict=True))


def _run(name: str, command: Sequence[str], environment: dict[str, str]) -> int:
    started_s = time.monotonic()
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, cwd=ROOT, env=environment, **pipes) as process:
        assert process.stdout is not None
        for line in process.stdout:
            say(name, line.decode(errors="replace").rstrip("\n"))
    code = process.wait()
    say(name, f"{'passed' if code == 0 else f'FAILED with code {code}'} after {time.monotonic() - started_s:.0f} s")
    return code


def say(name: str, text: str) -> None:
    sys.stdout.write(f"[{name}] {text}\n")  # one write: lines of two parts do not mix
    sys.stdout.flush()


def main(options: Sequence[str]) -> int:
    """Run the gate; return 0 if all of it passed."""
    parts = parts_of(options)
    say("gate", f"two at a time: {', '.join(parts)}")
    failed = [name for name, code in run_all(parts, at_a_time=2).items() if code]
    say("gate", f"FAILED: {', '.join(failed)}; its lines above say why" if failed else "all passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
