"""Sets up a learner's kernel: its folder, environment, limits and, where `bwrap` works, a sandbox.

With bwrap the kernel can read the system's libraries and this Python (view.py), and write to its own folder, which lies
in memory; it sees no network, no other process, no repository, and a filter refuses some system calls (syscalls.py). It
talks to us through sockets that it gets from us. Without bwrap only the limits are left: code of the same user can read
what that user can read, and kill what that user runs.
"""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from miniserve.course.grade import launch, probe, serve
from miniserve.course.grade.cgroup import in_group, leave
from miniserve.course.grade.clean import remove
from miniserve.course.grade.stubs import PACKAGE
from miniserve.course.grade.syscalls import system_call_filter
from miniserve.course.grade.view import HOME_BYTES, TEMPORARY_BYTES, copies, mounts, shown_folders
from miniserve.errors import SetupError

MEMORY_BYTES = 6 * 2**30  # of address space; torch, numba and matplotlib together take 1.6 GB of it
FILE_BYTES = 64 * 2**20
PROCESSES = 128  # and threads of one user, beyond those that run already; a kernel with numpy has about 20
FILES = 256  # open in one process; a kernel has about 50
GROUP_BYTES = 3 * 2**30 + HOME_BYTES + 2 * TEMPORARY_BYTES + 2**28  # for a whole run, where there is a control group
NOBODY = 65534  # the kernel's user in the sandbox when root grades: root is exempt from the limit on processes
DATA = PACKAGE.parent / "data"
KINDS = ("auto", "bwrap", "none")
PROBE_S = 60.0
_FILTER_FD = 9  # the number that the shell gives to the filter's file


@dataclass(frozen=True, slots=True)
class Room:
    """The folder of one run, as we see it. With bwrap the kernel can write to none of it: its home is in memory."""

    folder: Path

    @property
    def name(self) -> str:
        """The name of its control group."""
        return self.folder.parent.name

    @property
    def home(self) -> Path:
        """Where the kernel runs; with bwrap this path exists only inside."""
        return self.folder / "home"

    @property
    def given(self) -> Path:
        """Files that lie in the kernel's home when it starts."""
        return self.folder / "given"

    @property
    def package(self) -> Path:
        """The package, and our scripts that run inside."""
        return self.folder / "package"

    @property
    def connection(self) -> Path:
        """Jupyter's file with the key that signs messages, and the beginning of the names of its sockets."""
        return self.folder / "k"


def choose(kind: str) -> str:
    """Return "bwrap" or "none", which nobody gets who has not asked for it. Raises: SetupError if bwrap fails here."""
    if kind == "none":
        return "none"
    if why := bwrap_fails():
        raise SetupError(
            f"the sandbox doesn't work here: {why}. Without it, a submission can read the right answers and do "
            "whatever you can do on this machine. Linux: sudo apt install bubblewrap (0.7 or newer). To grade without "
            "a sandbox, and only code that you trust, say --sandbox none"
        )
    return "bwrap"


@cache
def bwrap_fails() -> str:
    """Return why bwrap doesn't work here, from a trial of the whole sandbox; empty if it does."""
    if shutil.which("bwrap") is None:
        return "there is no program bwrap"
    if system_call_filter() is None:
        return f"the numbers of {os.uname().machine}'s system calls aren't known to it"
    folder = Path(tempfile.mkdtemp(prefix="ms-"))
    room = Room(folder / "r")
    try:
        prepare(room, "bwrap")
        shutil.copyfile(probe.__file__, room.package / "probe.py")
        hidden = [f"{place}/{PACKAGE.name}" for place in (*copies(tuple(shown_folders())), str(PACKAGE.parent))]
        inside = [sys.executable, "-E", str(room.package / "probe.py"), str(HOME_BYTES), *hidden]
        command = _sandboxed(room, drops_root(room), inside)
        ran = subprocess.run(
            command, capture_output=True, text=True, env=kernel_environment(room), timeout=PROBE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)[:300]
    finally:
        leave(room.name)
        remove(folder)
    return (
        "" if ran.returncode == 0 else (ran.stderr.strip().splitlines() or [f"bwrap exits with {ran.returncode}"])[-1]
    )


def kernel_command(room: Room, kind: str, cpu_s: float) -> list[str]:
    """Return the command of a kernel. Whoever starts it adds a PORT=FD for each of the sockets."""
    for script in (launch.__file__, serve.__file__):
        shutil.copyfile(script, room.package / Path(script).name)
    drops = kind == "bwrap" and drops_root(room)
    kernel = [sys.executable, str(room.package / "serve.py"), str(room.connection)]
    command = [sys.executable, "-E", str(room.package / "launch.py"), *_limits(cpu_s, kernel_user(room, kind))]
    command += [f"USER={NOBODY}"] * drops
    command += ["--", *kernel]
    return _sandboxed(room, drops, command) if kind == "bwrap" else command


def kernel_user(room: Room, kind: str) -> int:
    """Return the user, seen from outside, that a kernel runs as."""
    return NOBODY if kind == "bwrap" and drops_root(room) else os.getuid()


def drops_root(room: Room) -> bool:
    """Return whether the kernel can run as nobody: root grades, and everyone can read what Python needs."""
    needed = [*shown_folders(), *site.getsitepackages(), str(room.package)]
    return os.getuid() == 0 and all(os.stat(path).st_mode & 0o004 for path in needed)


def _limits(cpu_s: float, user: int) -> list[str]:
    import psutil

    running = psutil.process_iter(["num_threads", "uids"])
    threads = sum(one.info["num_threads"] or 0 for one in running if one.info["uids"] and one.info["uids"].real == user)
    limits = {
        "AS": MEMORY_BYTES, "FSIZE": FILE_BYTES, "NOFILE": FILES, "CPU": int(cpu_s), "NPROC": threads + PROCESSES,
        "CORE": 0, "MSGQUEUE": 0,
    }  # fmt: skip
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


def _sandboxed(room: Room, drops: bool, inside: list[str]) -> list[str]:
    """Return `inside` as a command in the sandbox."""
    command = [
        shutil.which("bwrap") or "bwrap",
        "--unshare-ipc",
        "--unshare-pid",
        "--unshare-net",
        "--unshare-uts",
        "--unshare-cgroup-try",
    ]
    command += ["--die-with-parent", "--new-session", "--cap-drop", "ALL", "--seccomp", str(_FILTER_FD)]
    command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"] if drops else _own_users()
    others = {f"/etc/{name}": room.folder / name for name in ("passwd", "group")}
    others |= {str(room.connection): room.connection}
    others |= {str(room.package / "data"): DATA} if DATA.is_dir() else {}
    command += mounts(room.home, room.given, room.package, others)
    command += ["--chdir", str(room.home), "--", *inside]
    opened = ["/bin/sh", "-c", f'exec {_FILTER_FD}<"$0" "$@"', str(room.folder / "filter"), *command]
    return in_group(room.name, GROUP_BYTES, opened)


@cache
def _own_users() -> list[str]:
    """Return the options for a user namespace in which no further one can be made, if this bwrap knows how."""
    wanted = ["--unshare-user", "--disable-userns"]
    trial = ["bwrap", *wanted, "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true"]
    works = subprocess.run(trial, capture_output=True, check=False).returncode == 0
    return wanted if works else ["--unshare-user-try"]


def prepare(room: Room, kind: str) -> None:
    """Make the folders of a run, with a copy of matplotlib's list of fonts, which takes seconds to make."""
    (room.given / ".matplotlib").mkdir(parents=True)
    from matplotlib import get_cachedir

    for file in Path(get_cachedir()).glob("fontlist-*.json"):
        shutil.copyfile(file, room.given / ".matplotlib" / file.name)
    room.package.mkdir(exist_ok=True)
    if kind == "bwrap":
        room.connection.touch()
        (room.package / "data").mkdir()
        (room.folder / "filter").write_bytes(system_call_filter() or b"")
        (room.folder / "passwd").write_text(f"learner:x:{os.getuid()}:{os.getgid()}::/:/bin/sh\n")
        (room.folder / "group").write_text(f"learner:x:{os.getgid()}:\n")
    elif DATA.is_dir():
        (room.package / "data").symlink_to(DATA)


def furnish(room: Room, kind: str) -> None:
    """Put the given files into the home; with bwrap they get there as mounts."""
    if kind != "bwrap":
        shutil.copytree(room.given, room.home)
