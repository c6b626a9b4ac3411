"""Runs as a script inside the sandbox, before any submission does, and tries what must not work.

    python probe.py MOST_BYTES_OF_HOME HIDDEN_FOLDER ...

Exits with 1 and a sentence if the sandbox doesn't hold. Imports nothing from the package.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import sys

_KEYCTL = {"x86_64": 250, "aarch64": 219}
_NEW_USERS = 0x10000000


def faults(most_bytes: int, hidden: list[str]) -> list[str]:
    """Return what this sandbox lets through, as sentences."""
    libc = ctypes.CDLL(None, use_errno=True)
    found = [f"it shows {path}" for path in hidden if os.path.exists(path)]
    libc.syscall(_KEYCTL[platform.machine()], 0, -3, 0)
    found += ["its filter of system calls is not in force"] if ctypes.get_errno() != errno.EPERM else []
    found += ["it lets users be made anew"] if libc.unshare(_NEW_USERS) == 0 else []
    found += ["it has a network"] if [name for _, name in socket.if_nameindex() if name != "lo"] else []
    disk = os.statvfs(".")
    found += ["its home has no limit"] if disk.f_blocks * disk.f_frsize > most_bytes else []
    found += [] if os.access(".", os.W_OK) else ["its home can't be written to"]
    # Asking only: where the sandbox doesn't hold, nothing must happen to the machine.
    unwritable = ("/", "/dev", os.path.dirname(sys.argv[0]))
    return found + [f"it lets {folder} be written to" for folder in unwritable if os.access(folder, os.W_OK)]


if __name__ == "__main__":
    if problems := faults(int(sys.argv[1]), sys.argv[2:]):
        print("; ".join(problems), file=sys.stderr)
        sys.exit(1)
