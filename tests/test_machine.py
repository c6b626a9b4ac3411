"""What this machine has, as we read it from the system and from a container's limits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from miniserve.machine import available_bytes, rss_bytes

GROUP = {"memory_max": "1500000\n", "memory_current": "1000000\n", "memory_stat": "anon 5\ninactive_file 200000\n"}


def files(**contents: str) -> Callable[[Path], str]:
    def read(path: Path) -> str:
        name = path.name.replace(".", "_")
        if name not in contents:
            raise FileNotFoundError(path)
        return contents[name]

    return read


@pytest.mark.parametrize(
    ("system", "group", "expected"),
    [
        (None, {}, None),
        (None, GROUP, 700_000),
        (2_048_000, {}, 2_048_000),
        (2_048_000, GROUP, 700_000),
        (600_000, GROUP, 600_000),
        (2_048_000, {**GROUP, "memory_max": "max\n"}, 2_048_000),
        (2_048_000, {**GROUP, "memory_stat": "anon 5\n"}, 2_048_000),
        (2_048_000, {**GROUP, "memory_current": "1800000\n"}, 0),
    ],
)
def test_available_memory_is_what_system_and_container_leave(
    monkeypatch: pytest.MonkeyPatch, system: int | None, group: dict[str, str], expected: int | None
) -> None:
    def told() -> SimpleNamespace:
        if system is None:
            raise FileNotFoundError("/proc/meminfo")
        return SimpleNamespace(available=system)

    monkeypatch.setattr(psutil, "virtual_memory", told)
    assert available_bytes(files(**group)) == expected


def test_this_machine_has_memory_for_something() -> None:
    available = available_bytes()
    assert available is not None
    assert 1e6 < available <= psutil.virtual_memory().total


def test_our_memory_is_between_a_megabyte_and_a_terabyte() -> None:
    assert 1e6 < rss_bytes() < 1e12
