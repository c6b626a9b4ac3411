"""Programs from outside Python that some tests need: found, or the test skips with a sentence, or it fails.

A skip is easily overlooked. So MINISERVE_REQUIRE lists the programs that are known to be there (.ci/run sets it to what
it has installed), and for those a missing program is a failure.
"""

from __future__ import annotations

import os
import shutil

import pytest

# Our name for a program: the names under which systems install it, and the Debian package that has it
PROGRAMS: dict[str, tuple[tuple[str, ...], str]] = {
    "promtool": (("promtool",), "prometheus"),
    "chromium": (("chromium", "chromium-browser", "google-chrome"), "chromium"),
    "bwrap": (("bwrap",), "bubblewrap"),
}


def required_programs() -> set[str]:
    """Return the programs whose absence is a failure; an unknown name is an error, or it would require nothing."""
    names = {name.strip() for name in os.environ.get("MINISERVE_REQUIRE", "").split(",")} - {""}
    if unknown := names - PROGRAMS.keys():
        raise ValueError(f"MINISERVE_REQUIRE names {sorted(unknown)}; known are {sorted(PROGRAMS)}")
    return names


def require_program(name: str) -> str:
    """Return the path of a program; without it, skip the calling test, or fail it where MINISERVE_REQUIRE lists it."""
    executables, package = PROGRAMS[name]
    required = required_programs()
    for executable in executables:
        if path := shutil.which(executable):
            return path
    if name in required:
        pytest.fail(f"{name} is not on the PATH, though MINISERVE_REQUIRE says that it is installed", pytrace=False)
    pytest.skip(f"{name} is not on the PATH (Debian and Ubuntu: sudo apt install {package})")
