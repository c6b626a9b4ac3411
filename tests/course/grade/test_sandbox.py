"""The sandbox holds: what a kernel could reach, share with another or fill up is closed, and none is used unasked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from requirements_probe import require_program

from miniserve.course.grade import cgroup, sandbox, view
from miniserve.course.grade.clean import remove
from miniserve.course.grade.sandbox import Room, bwrap_fails, choose, kernel_environment, prepare
from miniserve.course.grade.view import copies, shown_folders
from miniserve.errors import SetupError

ROOT = Path(__file__).resolve().parents[3]
Inside = Callable[[str], Any]


@pytest.fixture
def room(tmp_path: Path) -> Room:
    room = Room(tmp_path / "run" / "r")
    prepare(room, "bwrap")
    (room.given / "given.json").write_text("{}")
    return room


@pytest.fixture
def inside(room: Room) -> Inside:
    """Run a program in the sandbox and return the value of its name `found`."""
    require_program("bwrap")
    if why := bwrap_fails():
        pytest.skip(why)

    def run(program: str) -> Any:
        tools = "import ctypes, json, os, socket\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        tools += "def call(*n):\n    ctypes.set_errno(0)\n    return libc.syscall(*n), ctypes.get_errno()\n"
        tools += "def fails(do):\n    try: do()\n    except OSError as error: return error.errno\n    return 0\n"
        text = f"{tools}{program}\nprint(json.dumps(found))"
        command = sandbox._sandboxed(room, sandbox.drops_root(room), [sys.executable, "-c", text])
        ran = subprocess.run(command, capture_output=True, text=True, env=kernel_environment(room), timeout=60)
        cgroup.leave(room.name)
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)

    return run


def test_the_whole_sandbox_works_here() -> None:
    require_program("bwrap")
    if why := bwrap_fails():
        pytest.skip(why)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are x86-64's; test_syscalls.py has both")
def test_keys_other_processes_and_namespaces_are_out_of_reach(inside: Inside) -> None:
    found = inside("""
found = {
    "get a keyring": call(250, 0, -3, 1), "join one": call(250, 1, None),
    "add a key": call(248, b"user", b"a", b"b", 1, -3),
    "read the user's": call(250, 11, -4, None, 0), "request a key": call(249, b"user", b"a", None, -3),
    "trace": call(101, 16, os.getppid(), 0, 0), "read another's memory": call(310, 1, None, 0, None, 0, 0),
    "new users": call(272, 0x10000000), "clone with new users": call(56, 0x10000000 | 17, None, None, None, None),
    "enter a namespace": call(308, 0, 0), "mount": call(165, b"none", b"/tmp", b"tmpfs", 0, None),
    "bpf": call(321, 0, None, 0), "shared memory": call(29, 0, 4096, 0o1600),
}""")

    assert {what: result for what, result in found.items() if result != [-1, 1]} == {}


def test_there_is_no_network_not_even_to_the_host_of_a_virtual_machine(inside: Inside) -> None:
    found = inside("""
found = {
    "cards": [name for _, name in socket.if_nameindex()],
    "vsock": fails(lambda: socket.socket(40, socket.SOCK_STREAM)),
    "raw": fails(lambda: socket.socket(17, socket.SOCK_RAW)),
    "inside": fails(lambda: socket.create_server(("127.0.0.1", 0))),
}""")

    assert found == {"cards": ["lo"], "vsock": 97, "raw": 97, "inside": 0}


def test_only_three_places_can_be_written_to_and_each_has_a_size(inside: Inside) -> None:
    found = inside("""
def size(path):
    disk = os.statvfs(path)
    return disk.f_blocks * disk.f_frsize // 2**20
def writable(path):
    try:
        with open(path + "/new", "w"): return True
    except OSError: return False
found = [
    sorted(p for p in {line.split()[4] for line in open("/proc/self/mountinfo")} if os.path.isdir(p) and writable(p)),
    [size("."), size("/tmp"), size("/dev/shm")], os.getcwd(),
]""")
    home = found[2]

    assert found[0] == sorted(["/tmp", "/dev/shm", home])
    assert found[1] == [256, 64, 64]
    assert not Path(home).exists()


def test_memory_in_files_without_a_disk_is_not_to_be_had(inside: Inside) -> None:
    assert inside("found = fails(lambda: os.memfd_create('x'))") == 38


def test_what_is_given_can_be_read_and_neither_changed_nor_removed(inside: Inside) -> None:
    found = inside("""
given = "given.json"
found = [open(given).read(), fails(lambda: open(given, "w")), fails(lambda: os.unlink(given))]""")

    assert found[0] == "{}"
    assert 0 not in found[1:]


def test_nobody_else_is_seen(inside: Inside) -> None:
    found = inside("""
found = [
    [int(p) for p in os.listdir("/proc") if p.isdigit()], open("/etc/passwd").read(), os.path.exists("/proc/1/environ"),
    sorted(os.environ), os.path.exists("/root"), os.path.exists("/home"), os.path.exists("/var"),
]""")

    assert max(found[0]) < 10
    assert found[1].startswith("learner:x:")
    assert found[1].count("\n") == 1
    assert {name for name in found[3] if "KEY" in name or "TOKEN" in name} == set()
    assert found[5:] == [False, False]


def test_names_of_keys_are_not_listed(inside: Inside) -> None:
    assert (
        inside("""
try: found = open("/proc/keys").read()
except OSError: found = ""
""")
        == ""
    )


def test_the_repository_is_not_there(inside: Inside) -> None:
    found = inside(f"""
places = [{str(ROOT)!r} + name for name in ("/miniserve", "/solutions", "/tests", "/.git", "/chapters", "/README.md")]
found = [place for place in places if os.path.exists(place)]""")

    assert found == []


@pytest.mark.parametrize(
    "place",
    ["src/miniserve", "lib/clone", "lib/python3.11/site-packages/clone", "share/a/b/c/d/clone", "etc/miniserve"],
)
def test_a_clone_inside_the_environment_is_covered(
    place: str, room: Room, inside: Inside, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment = tmp_path / "environment"
    clone = environment / place
    (clone / "miniserve" / "course" / "chapters").mkdir(parents=True)
    (clone / "solutions").mkdir()
    (clone / "solutions" / "12_balancer.py").write_text("the answers")
    (environment / "lib" / "beside").mkdir(parents=True)
    monkeypatch.setattr(view, "shown_folders", lambda: [*shown_folders(), *view._parts({str(environment)})])
    monkeypatch.setattr(view, "_places", lambda: [clone])

    found = inside(f"""
found = [[os.path.join(at, name) for at, _, names in os.walk({str(environment)!r}) for name in names],
         os.path.isdir({str(environment / "lib" / "beside")!r})]""")

    assert found == [[], True]


def test_an_environment_inside_the_repository_is_seen_without_the_repository(
    room: Room, inside: Inside, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    outer = tmp_path / "outer" / "share"
    clone = outer / "clone"
    (clone / "miniserve" / "course" / "chapters").mkdir(parents=True)
    (clone / "pyproject.toml").touch()
    (clone / ".venv" / "lib").mkdir(parents=True)
    (clone / ".venv" / "lib" / "library").write_text("x")
    monkeypatch.setattr(view, "shown_folders", lambda: [*shown_folders(), str(outer), str(clone / ".venv" / "lib")])

    found = inside(f"found = [os.path.join(at, name) for at, _, names in os.walk({str(outer)!r}) for name in names]")

    assert found == [str(clone / ".venv" / "lib" / "library")]


def test_an_installed_copy_is_covered_and_its_neighbours_are_not(tmp_path: Path) -> None:
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    (packages / "miniserve" / "course" / "chapters").mkdir(parents=True)
    (packages / "pyproject.toml").touch()  # some package put it there
    (packages / "numpy").mkdir()

    assert copies((str(tmp_path / "lib"),)) == (str(packages / "miniserve"),)


def test_a_copy_is_found_behind_a_link_to_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = tmp_path / "real" / "lib" / "a" / "b" / "c" / "d" / "clone"
    (clone / "miniserve" / "course" / "chapters").mkdir(parents=True)
    (clone / "solutions").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.setattr(view, "_places", lambda: [clone])

    assert copies((str(tmp_path / "link" / "lib"),)) == (str(tmp_path / "link/lib/a/b/c/d/clone"),)


# --- which sandbox --------------------------------------------------------------------------------------------------


def test_without_bwrap_only_the_word_none_grades(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "bwrap_fails", lambda: "there is no program bwrap")

    for kind in ("auto", "bwrap"):
        with pytest.raises(SetupError, match=r"there is no program bwrap.*--sandbox none"):
            choose(kind)
    assert choose("none") == "none"


def test_where_bwrap_works_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "bwrap_fails", lambda: "")

    assert choose("auto") == choose("bwrap") == "bwrap"


@pytest.fixture
def fresh_trial() -> Any:
    cached = (sandbox.bwrap_fails, sandbox._own_users)
    for one in cached:
        one.cache_clear()
    yield
    for one in cached:
        one.cache_clear()


@pytest.mark.usefixtures("fresh_trial")
def test_a_bwrap_that_may_do_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    assert "No permissions to create new namespace" in bwrap_fails()


@pytest.mark.usefixtures("fresh_trial")
def test_a_sandbox_that_does_not_hold_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here is one that runs everything as it is: the trial must see that."""
    program = tmp_path / "bwrap"
    program.write_text(
        '#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done; shift; cd "$HOME" 2>/dev/null || cd /; exec "$@"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    said = bwrap_fails()

    assert "it shows " in said
    assert "filter of system calls is not in force" in said


@pytest.mark.usefixtures("fresh_trial")
def test_an_unknown_architecture_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    require_program("bwrap")
    monkeypatch.setattr(sandbox, "system_call_filter", lambda: None)

    assert "system calls" in bwrap_fails()


# --- control groups -------------------------------------------------------------------------------------------------


@pytest.fixture
def fresh_groups() -> Any:
    cached = (cgroup._systemd_works, cgroup._parent)
    for one in cached:
        one.cache_clear()
    yield
    for one in cached:
        one.cache_clear()


@pytest.mark.usefixtures("fresh_groups")
def test_systemd_is_asked_for_a_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "systemd-run"
    program.write_text(
        '#!/bin/sh\ntest -d "$XDG_RUNTIME_DIR" || exit 1\nwhile [ "$1" != -- ]; do shift; done; shift; exec "$@"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    command = cgroup.in_group("ms-x", 123, ["sh", "-c", "echo a b$XDG_RUNTIME_DIR"])

    assert "--property=MemoryMax=123" in command
    assert ("--user" in command) == (os.getuid() != 0)
    ran = subprocess.run(command, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert ran.stdout == "a b\n"  # it reached systemd, which the command inside can't


@pytest.mark.usefixtures("fresh_groups")
@pytest.mark.parametrize("file", ["memory.max", "memory.limit_in_bytes"])
def test_without_systemd_a_group_is_made_where_that_is_allowed(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroup, "_systemd_works", lambda: False)
    monkeypatch.setattr(cgroup, "_parent", lambda: tmp_path)
    (tmp_path / "ms-x").mkdir()
    (tmp_path / "ms-x" / file).touch()  # a real one appears with its folder
    command = cgroup.in_group("ms-x", 123, ["sh", "-c", "echo $$"])
    ran = subprocess.run(command, capture_output=True, text=True)

    assert (tmp_path / "ms-x" / file).read_text() == "123\n"
    assert (tmp_path / "ms-x" / "cgroup.procs").read_text() == ran.stdout


@pytest.mark.usefixtures("fresh_groups")
def test_where_none_can_be_made_the_command_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "_systemd_works", lambda: False)
    for parent in (None, tmp_path):  # no control groups; a folder that is none
        monkeypatch.setattr(cgroup, "_parent", lambda parent=parent: parent)

        assert cgroup.in_group("ms-x", 123, ["true"]) == ["true"]
        assert list(tmp_path.iterdir()) == []
    remove(tmp_path / "ms-x")
