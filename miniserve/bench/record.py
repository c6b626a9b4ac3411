"""The origin of a measurement (machine, versions, commit), and the file that stores it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from miniserve.machine import cpu_name, usable_cores

_PACKAGES = ("torch", "transformers", "numpy", "numba", "triton", "fastapi", "uvicorn", "httpx", "openai")


def environment() -> dict[str, Any]:
    """Return what you need in order to judge a figure. Names no path and no host."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "load_average_1m": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version for name in _PACKAGES if (version := _version(name))},
        "commit": _commit(),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    try:
        done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def save_record(what: str, result: dict[str, Any], folder: Path) -> Path:
    """Write `<date>-<what>.json` with the environment and the result; a second run that day replaces the first."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{datetime.now(UTC).date().isoformat()}-{what}.json"
    path.write_text(json.dumps({"what": what, "environment": environment(), "result": result}, indent=1) + "\n")
    return path
