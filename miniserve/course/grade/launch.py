"""Runs as a script inside the sandbox: sets limits on this process, then becomes the kernel.

    python launch.py NAME=NUMBER ... [USER=NUMBER] -- PROGRAM ARGUMENT ...

Imports nothing from the package. It leaves a limit alone that this system doesn't know, or that is already lower.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress


def limit(name: str, number: int) -> None:
    """Lower one limit, soft and hard, so that the process can't raise it again."""
    try:
        import resource

        which = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(which)
        number = number if hard == resource.RLIM_INFINITY else min(number, hard)
        resource.setrlimit(which, (number, number))
    except (ImportError, AttributeError, ValueError, OSError) as error:
        print(f"no limit on {name}: {error}", file=sys.stderr)


def main(argv: list[str]) -> None:
    """Set the limits, forget the parent (a sandbox hides it), start the program in this process."""
    at = argv.index("--")
    settings = {name: int(number) for name, _, number in (setting.partition("=") for setting in argv[:at])}
    user = settings.pop("USER", None)
    for name, number in settings.items():
        limit(name, number)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")  # if the machine runs out of memory, this goes first
    if user is not None:  # root is exempt from the limit on processes
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    os.environ.pop("JPY_PARENT_PID", None)  # or the kernel would think that its parent has gone, and exit
    os.execv(argv[at + 1], argv[at + 1 :])


if __name__ == "__main__":
    main(sys.argv[1:])
