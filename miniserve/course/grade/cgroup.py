"""Puts a command into a control group with a limit on memory, on machines where we may make one.

A group counts everything: memory in files and sockets, and what the system's kernel holds for a process. Where we may
make none, the supervisor's own counting is left. Knows nothing of sandboxes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from functools import cache
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_ENV = "/usr/bin/env"
_TRIAL_S = 10.0


def in_group(name: str, most_bytes: int, command: list[str]) -> list[str]:
    """Return `command` so that it runs in a group of its own; unchanged where that isn't possible."""
    if _systemd_works():
        return _with_systemd(most_bytes, command)
    if (group := _made(name, most_bytes)) is not None:
        return ["/bin/sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(group), *command]
    return command


def leave(name: str) -> None:
    """Remove the group that `in_group` made; all its processes have ended."""
    if (parent := _parent()) is not None:
        with suppress(OSError):
            (parent / name).rmdir()


def _with_systemd(most_bytes: int, command: list[str]) -> list[str]:
    """Return a command that asks systemd for a group, which goes when its processes have gone."""
    user = [] if os.getuid() == 0 else ["--user"]
    limits = [f"--property=MemoryMax={most_bytes}", "--property=MemorySwapMax=0"]
    asked = [shutil.which("systemd-run") or "", *user, "--scope", "--quiet", "--collect", *limits, "--"]
    # It finds the user's systemd by this variable, which nobody else needs to know.
    at = os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    return [_ENV, f"XDG_RUNTIME_DIR={at}", *asked, _ENV, "-u", "XDG_RUNTIME_DIR", *command]


@cache
def _systemd_works() -> bool:
    if shutil.which("systemd-run") is None or not Path(_ENV).exists():
        return False
    try:
        trial = subprocess.run(
            _with_systemd(2**30, ["true"]), capture_output=True, timeout=_TRIAL_S, env={}, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return trial.returncode == 0


def _made(name: str, most_bytes: int) -> Path | None:
    """Make a group directly, as root in a container may."""
    if (parent := _parent()) is None:
        return None
    group = parent / name
    for file in ("memory.max", "memory.limit_in_bytes"):  # cgroup v2, v1
        with suppress(OSError):
            group.mkdir(exist_ok=True)
            if (group / file).exists():
                (group / file).write_text(f"{most_bytes}\n")
                return group
            group.rmdir()
    return None


@cache
def _parent() -> Path | None:
    """Return the folder of our own group, if we may make another in it."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            if not kinds or "memory" in kinds.split(","):
                folder = (_ROOT / kinds if kinds else _ROOT) / path.lstrip("/")
                if (folder / "cgroup.procs").exists() and os.access(folder, os.W_OK):
                    return folder
    return None
