"""Sets up a learner's kernel: its folder, environment, limits and, where `bwrap` works, a sandbox.

With bwrap the kernel can read the system's libraries and this Python, and write to its own folder; it sees no network,
no other process, no repository. It talks to us through sockets in its folder. Without bwrap only the limits are left:
code of the same user can read what that user can read, and kill what that user runs.
"""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from miniserve.course.grade import launch
from miniserve.course.grade.stubs import PACKAGE
from miniserve.errors import SetupError

MEMORY_BYTES = 6 * 2**30  # of address space; torch, numba and matplotlib together take 1.6 GB of it
FILE_BYTES = 64 * 2**20
PROCESSES = 128  # and threads of one user, beyond those that run already; a kernel with numpy has about 20
NOBODY = 65534  # the kernel's user in the sandbox when root grades: root is exempt from the limit on processes
DATA = PACKAGE.parent / "data"
KINDS = ("auto", "bwrap", "none")


@dataclass(frozen=True, slots=True)
class Room:
    """The folder of one run: the kernel may write to `home`; its package is in `package`."""

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def package(self) -> Path:
        return self.folder / "package"


def choose(kind: str) -> str:
    """Return "bwrap" or "none". Raises: SetupError if the caller asks for bwrap and it doesn't work."""
    if kind == "none" or (kind == "auto" and not bwrap_works()):
        return "none"
    if not bwrap_works():
        raise SetupError("bwrap is missing or may not make namespaces here; use --sandbox none for code you trust")
    return "bwrap"


def bwrap_works() -> bool:
    """Return whether bwrap works: in some containers it is installed but may do nothing."""
    if (program := shutil.which("bwrap")) is None:
        return False
    command = [program, "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def kernel_command(room: Room, kind: str, cpu_s: float) -> list[str]:
    """Return the command of a kernel; Jupyter fills in `{connection_file}`."""
    script = room.package / "launch.py"
    shutil.copyfile(launch.__file__, script)
    kernel = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    drops = kind == "bwrap" and drops_root(room)
    command = [sys.executable, "-E", str(script), *_limits(cpu_s, NOBODY if drops else os.getuid())]
    if drops:
        command.append(f"USER={NOBODY}")
        for path in (room.home, *room.home.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
    command += ["--", *kernel]
    return [*_bwrap(room, drops), *command] if kind == "bwrap" else command


def drops_root(room: Room) -> bool:
    """Return whether the kernel can run as nobody: root grades, and everyone can read what Python needs."""
    needed = [*_python_folders(), *site.getsitepackages(), str(room.package)]
    return os.getuid() == 0 and all(os.stat(path).st_mode & 0o005 == 0o005 for path in needed)


def _limits(cpu_s: float, user: int) -> list[str]:
    import psutil

    running = psutil.process_iter(["num_threads", "uids"])
    threads = sum(one.info["num_threads"] or 0 for one in running if one.info["uids"] and one.info["uids"].real == user)
    limits = {"AS": MEMORY_BYTES, "FSIZE": FILE_BYTES, "CPU": int(cpu_s), "NPROC": threads + PROCESSES, "CORE": 0}
    return [f"{name}={number}" for name, number in limits.items()]


def kernel_environment(room: Room) -> dict[str, str]:
    """Return the whole environment of the kernel's process: nothing of ours."""
    home = str(room.home)
    return {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"]),
        "HOME": home,
        "USER": "learner",
        "TMPDIR": home,
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(room.package),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "MPLCONFIGDIR": f"{home}/.matplotlib",
        "NUMBA_CACHE_DIR": f"{home}/.numba",
        "OMP_NUM_THREADS": "1",
        "MINISERVE_GRADED_IN": str(room.folder),  # this mark finds its processes, wherever they hide
    }


def _bwrap(room: Room, drops: bool) -> list[str]:
    command = ["bwrap", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    command += ["--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"] if drops else ["--unshare-user-try"]
    command += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    system = [path for path in ("/usr", "/bin", "/lib", "/lib64", "/sbin") if Path(path).exists()]
    for folder in system:
        command += ["--ro-bind", folder, folder]
    if any(PACKAGE.is_relative_to(folder) for folder in system):
        command += ["--tmpfs", str(PACKAGE.parent)]
    folders = _python_folders()
    for parent in _parents([*folders, str(room.package), str(room.home)]):
        command += ["--perms", "0755", "--dir", parent]
    for folder in folders:
        command += ["--ro-bind", folder, folder]
    for folder in _installed_copies():
        command += ["--tmpfs", folder]
    for file in ("/etc/ld.so.cache", "/etc/fonts", "/etc/localtime", "/etc/passwd"):
        command += ["--ro-bind-try", file, file]
    command += ["--ro-bind", str(room.package), str(room.package)]
    if DATA.is_dir():
        command += ["--ro-bind", str(DATA), str(room.package / "data")]
    return [*command, "--bind", str(room.home), str(room.home), "--chdir", str(room.home), "--"]


def _parents(paths: list[str]) -> list[str]:
    """Return the folders above some paths, outermost first: bwrap would make them for root only."""
    return sorted({str(parent) for path in paths for parent in Path(path).parents} - {"/", "/usr", "/tmp"})


def _python_folders() -> list[str]:
    """Return this environment, and the Python that it was made from."""
    return sorted({sys.prefix, sys.base_prefix, str(Path(sys.executable).resolve().parents[1])} - {"/usr", "/"})


def _installed_copies() -> list[str]:
    """Return readable folders that hold the package itself, with its reference solutions."""
    folders = [Path(folder) / PACKAGE.name for folder in site.getsitepackages()]
    return [str(folder) for folder in folders if folder.is_dir()]


def prepare(room: Room, kind: str) -> None:
    """Make the folders of a run, with a copy of matplotlib's list of fonts, which takes seconds to make."""
    (room.home / ".matplotlib").mkdir(parents=True)
    from matplotlib import get_cachedir

    for file in Path(get_cachedir()).glob("fontlist-*.json"):
        shutil.copyfile(file, room.home / ".matplotlib" / file.name)
    room.package.mkdir(exist_ok=True)
    if kind == "bwrap":
        (room.package / "data").mkdir()
    elif DATA.is_dir():
        (room.package / "data").symlink_to(DATA)
