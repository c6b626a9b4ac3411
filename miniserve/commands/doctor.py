"""`miniserve doctor`: examine this machine and say, line by line, what will work and how to fix what will not.

Each line begins with `ok`, `note` (works, but worth knowing) or `missing`. The exit code is 1 only if something
essential is missing. It reports and changes nothing.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from miniserve.commands.options import add_cache_option, port
from miniserve.machine import available_bytes, usable_cores

MIN_PYTHON = (3, 11)
NEEDED_MEMORY_BYTES = 1_500_000_000  # one replica of smollm2 and the gateway
NEEDED_DISK_BYTES = 800_000_000  # the download, the GGUF file and the fp32 folder of smollm2
INSTALL = "python -m pip install -e ."
PORTS = 4  # how many are checked, from the first one on


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `fix` says what to do; if `essential`, a missing thing affects the exit code."""

    word: str  # ok | note | missing
    subject: str
    detail: str
    fix: str = ""
    essential: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    add_cache_option(parser)
    parser.add_argument("--port", type=port, default=8000, help="first port to check (default %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Print the report; 1 if something essential is missing."""
    failed = False
    for finding in examine(args.cache, args.port):
        failed |= finding.essential and finding.word == "missing"
        print(f"{finding.word:<8} {finding.subject:<10} {finding.detail}", flush=True)
        if finding.fix:
            print(f"{'':<8} {'':<10} -> {finding.fix}", flush=True)
    return 1 if failed else 0


def examine(cache: Path, first_port: int) -> Iterator[Finding]:
    """Yield the findings in the order in which they are worth fixing."""
    yield check_python(sys.version_info[:3])
    yield check_cores()
    yield check_memory()
    yield from check_torch()
    yield check_triton(sys.platform)
    yield from check_packages(requirements())
    yield from check_weights(cache)
    yield check_ports(range(first_port, first_port + PORTS))
    yield check_disk(cache)


def check_python(version: tuple[int, ...]) -> Finding:
    """Is this Python new enough?"""
    text = f"{'.'.join(map(str, version))} at {sys.executable}"
    if version[:2] >= MIN_PYTHON:
        return Finding("ok", "Python", text)
    wanted = ".".join(map(str, MIN_PYTHON))
    return Finding("missing", "Python", f"{text}; {wanted} or newer is needed", f"install Python {wanted}", True)


def check_cores() -> Finding:
    """Which CPU is this, and how much of it may we use?"""
    mine, all_cores = usable_cores(), os.cpu_count() or 1
    text = f"{cpu_model()}, {mine} of {all_cores} cores usable"
    if mine < 2:
        return Finding(
            "note", "CPU", text, "with one core the gateway and the replicas take turns: expect slow answers"
        )
    return Finding("ok", "CPU", text)


def cpu_model() -> str:
    """Return the processor's own name, as far as the system reveals it."""
    try:
        if sys.platform == "darwin":
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
        match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except (OSError, subprocess.SubprocessError):
        match = None
    return match[1] if match else platform.processor() or platform.machine()


def check_memory() -> Finding:
    """Is there room for a replica?"""
    try:
        available = available_bytes()
    except ImportError as error:
        return Finding("note", "memory", f"cannot be told: {error}")
    if available is None:
        return Finding("note", "memory", "this system does not say how much is available")
    if available < NEEDED_MEMORY_BYTES:
        need = f"about {NEEDED_MEMORY_BYTES / 1e9:.1f} GB are needed for smollm2"
        return Finding(
            "note", "memory", f"{available / 1e9:.1f} GB available; {need}", "close programs, or use --model tiny"
        )
    return Finding("ok", "memory", f"{available / 1e9:.1f} GB available")


def check_torch() -> Iterator[Finding]:
    """Is torch installed, which version, how many threads does it use, and does it see a GPU?"""
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: one of its libraries cannot be loaded
        first_line = str(error).splitlines()[0]
        yield Finding("missing", "torch", f"cannot be imported: {first_line}", INSTALL, True)
        return
    threads, mine = torch.get_num_threads(), usable_cores()
    yield Finding("ok", "torch", f"{torch.__version__}, {threads} threads by default")
    if threads > mine:
        yield Finding(
            "note", "threads", f"{threads} torch threads on {mine} usable cores", f"export OMP_NUM_THREADS={mine}"
        )
    if torch.cuda.is_available():
        yield Finding("ok", "GPU", f"{torch.cuda.get_device_name(0)}, CUDA {torch.version.cuda}")
    else:
        yield Finding("note", "GPU", "no CUDA device: everything runs on the CPU, Triton kernels in their interpreter")


def check_triton(system: str, version_of: Callable[[str], str] = importlib.metadata.version) -> Finding:
    """Can Triton kernels run here, at least in the interpreter?"""
    if system != "linux":
        return Finding("note", "Triton", f"exists for Linux only (this is {system}); only the kernel labs need it")
    try:
        return Finding("ok", "Triton", version_of("triton"))
    except importlib.metadata.PackageNotFoundError:
        return Finding(
            "note", "Triton", "not installed; only the kernel labs need it", 'python -m pip install -e ".[gpu]"'
        )


def requirements() -> list[str]:
    """Return this project's own requirements, as recorded by its installation ([] if it is not installed)."""
    try:
        return importlib.metadata.requires("miniserve") or []
    except importlib.metadata.PackageNotFoundError:
        return []


def check_packages(
    lines: Iterable[str], version_of: Callable[[str], str] = importlib.metadata.version
) -> Iterator[Finding]:
    """Compare requirement lines with what is installed: missing packages, and exact pins that are not met."""
    extras: set[str] = set()
    absent: dict[str, list[str]] = {}  # extra ("" = needed always) -> packages
    for line in lines:
        name, pin, extra = _parse_requirement(line)
        if name == "triton":  # depends on the system: see `check_triton`
            continue
        extras.add(extra)
        try:
            version = version_of(name)
        except importlib.metadata.PackageNotFoundError:
            absent.setdefault(extra, []).append(name)
            continue
        if pin and version.split("+")[0] != pin:
            yield Finding("note", name, f"is {version}, tested with {pin}", f'python -m pip install "{name}=={pin}"')
    if not extras:
        yield Finding("note", "packages", "miniserve itself is not installed, so its requirements are unknown", INSTALL)
    elif "" not in absent:
        yield Finding("ok", "packages", "all that miniserve needs is installed")
    if complete := sorted(extras - absent.keys() - {""}):
        yield Finding("ok", "packages", f"optional, complete: {', '.join(f'[{extra}]' for extra in complete)}")
    for extra, names in absent.items():
        yield _absent(extra, names)


def _absent(extra: str, names: list[str]) -> Finding:
    listed = ", ".join(names)
    if not extra:
        return Finding("missing", "packages", f"not installed: {listed}", INSTALL, True)
    install = f'python -m pip install -e ".[{extra}]"'
    return Finding("note", "packages", f"optional, for [{extra}]: {listed} not installed", install)


def _parse_requirement(line: str) -> tuple[str, str, str]:
    """Return (name, exact version or "", extra or "") of a requirement line."""
    name = re.match(r"[A-Za-z0-9._-]+", line)
    pin = re.match(r"[^;]*?==\s*([0-9][0-9A-Za-z.]*)\s*(?:;|$)", line)  # "15.*" is not exact
    extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", line)
    return (name[0] if name else line, pin[1] if pin else "", extra[1] if extra else "")


def check_weights(cache: Path) -> Iterator[Finding]:
    """Which models are in the cache, and are they complete?"""
    from miniserve.models.store import NAMES, cached_models

    fetch = "python -m miniserve weights fetch"
    models = cached_models(cache)
    for model in models:
        word, detail = ("note", model.problem) if model.problem else ("ok", f"{model.size_bytes / 1e6:.0f} MB")
        again = f"{fetch} {model.name if model.name in NAMES else model.source}"
        yield Finding(word, "weights", f"{model.name}: {detail}", again if model.problem else "")
    if "smollm2" not in {model.name for model in models}:
        yield Finding("note", "weights", f"smollm2 is not in {cache}", f"{fetch} (a 98 MB download)")


def check_ports(ports: Iterable[int]) -> Finding:
    """Are the usual ports free?"""
    ports = list(ports)
    taken = [number for number in ports if not _is_free(number)]
    if not taken:
        return Finding("ok", "ports", f"{ports[0]} to {ports[-1]} are free on 127.0.0.1")
    listed = ", ".join(map(str, taken))
    return Finding(
        "note",
        "ports",
        f"in use on 127.0.0.1: {listed}",
        "stop the programs that use them, or choose others with --port",
    )


def _is_free(number: int) -> bool:
    with socket.socket() as probe:
        if sys.platform != "win32":  # a port in TIME_WAIT is free for us; on Windows the option means something else
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", number))
        except (OSError, OverflowError):
            return False
        return True


def check_disk(cache: Path) -> Finding:
    """Is there room for the model files?"""
    place = next(folder for folder in (cache, *cache.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    text = f"{free / 1e9:.1f} GB free at {cache}"
    if free < NEEDED_DISK_BYTES:
        need = f"{text}; smollm2 needs {NEEDED_DISK_BYTES / 1e9:.1f} GB"
        return Finding("note", "disk", need, "free some space, or name another folder with --cache")
    return Finding("ok", "disk", text)
