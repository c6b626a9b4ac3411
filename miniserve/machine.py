"""What this machine has, and what we may use of it: cores, memory, and the processor's name.

psutil is imported only where it is needed: the doctor looks at machines that may lack it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from collections.abc import Callable
from pathlib import Path


def usable_cores() -> int:
    """Return how many cores this process may really use; a container may allow fewer than the machine has."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    allowed = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(allowed, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup v2, or "max": no quota
        return allowed


def cpu_name() -> str:
    """Return the processor's name, with its vector extension if Linux reports it."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    first = info.read_text().split("\n\n")[0]
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    flags = fields.get("flags", "").split()
    vector = next((flag for flag in ("avx512f", "avx2", "avx") if flag in flags), "no avx")
    return f"{fields.get('model name', platform.machine())} ({vector})"


def available_bytes(read: Callable[[Path], str] = Path.read_text) -> int | None:
    """Return how much memory new processes can have: the system's, or the container's where that is less."""
    known = [amount for amount in (_system_available(), _container_available(read)) if amount is not None]
    return min(known, default=None)


def _system_available() -> int | None:
    import psutil

    try:
        return psutil.virtual_memory().available
    except OSError:  # a sandbox may hide what the system says
        return None


def _container_available(read: Callable[[Path], str]) -> int | None:
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = int(read(group / "memory.max")), int(read(group / "memory.current"))
        stat = dict(line.split() for line in read(group / "memory.stat").splitlines())
        reclaimable = int(stat["inactive_file"])  # cached files count as used, but give way
    except (OSError, ValueError, KeyError):  # no such file, or no limit ("max")
        return None
    return max(0, limit - used + reclaimable)


def rss_bytes() -> int:
    """Return the memory that this process holds now."""
    import psutil

    return psutil.Process().memory_info().rss


def release_free_memory() -> None:
    """Hand freed memory back to the system: packing weights leaves about 70 MB in fragments with the C library.

    Works only with glibc; elsewhere it does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
