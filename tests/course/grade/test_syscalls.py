"""The filter of system calls says what it should on both architectures: here a small machine runs its program."""

from __future__ import annotations

import errno
import struct

import pytest

from miniserve.course.grade.syscalls import NUMBERS, system_call_filter

ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "i386": 0x40000003, "arm": 0x40000028}
ALLOW, KILL = "allow", "kill"
NEW_USERS, THREAD = 0x10000000, 0x003D0F00  # flags of clone: a user namespace; what starts a thread


def outcome(machine: str, number: int, argument: int = 0, architecture: str = "") -> str | int:
    """Run the program on one call; return what it says, or the error that the caller would see."""
    program = system_call_filter(machine)
    assert program is not None
    data = struct.pack(
        "<iIQ6Q", number - (number >> 31 << 32), ARCHITECTURE[architecture or machine], 0, argument, *[0] * 5
    )
    steps, at, held = list(struct.iter_unpack("<HBBI", program)), 0, 0
    while True:
        code, if_true, if_false, constant = steps[at]
        at += 1
        if code == 0x20:
            (held,) = struct.unpack_from("<I", data, constant)
        elif code == 0x06:
            kinds = {0x7FFF0000: ALLOW, 0x80000000: KILL}
            return kinds.get(constant) or constant & 0xFFFF
        else:
            holds = {0x15: held == constant, 0x35: held >= constant, 0x45: bool(held & constant)}[code]
            at += if_true if holds else if_false


REFUSED = [
    "add_key", "request_key", "keyctl", "ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd", "bpf",
    "perf_event_open", "userfaultfd", "unshare", "setns", "mount", "umount2", "pivot_root", "open_tree", "move_mount",
    "fsopen", "mount_setattr", "shmget", "msgget", "semget", "mq_open", "kexec_load", "init_module", "reboot", "chroot",
]  # fmt: skip
ABSENT = ["clone3", "memfd_create", "memfd_secret", "io_uring_setup", "io_uring_enter", "io_uring_register"]
both = pytest.mark.parametrize("machine", sorted(NUMBERS))


@both
def test_what_two_runs_could_share_is_refused(machine: str) -> None:
    assert {name: outcome(machine, NUMBERS[machine][name]) for name in REFUSED} == dict.fromkeys(REFUSED, errno.EPERM)


@both
def test_what_libraries_have_another_way_for_does_not_exist(machine: str) -> None:
    assert {name: outcome(machine, NUMBERS[machine][name]) for name in ABSENT} == dict.fromkeys(ABSENT, errno.ENOSYS)


@both
def test_a_process_may_clone_but_make_no_namespace(machine: str) -> None:
    clone = NUMBERS[machine]["clone"]

    assert outcome(machine, clone, THREAD) == ALLOW
    assert outcome(machine, clone, 17) == ALLOW  # SIGCHLD: a fork
    for flag in (NEW_USERS, 0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x20000000, 0x40000000):
        assert outcome(machine, clone, flag | 17) == errno.EPERM


@both
@pytest.mark.parametrize("call", ["socket", "socketpair"])
def test_sockets_stay_in_the_network_namespace(machine: str, call: str) -> None:
    number = NUMBERS[machine][call]

    assert [outcome(machine, number, family) for family in (1, 2, 10, 16)] == [ALLOW] * 4
    for family in (0, 3, 17, 38, 40, 44):  # PACKET 17, ALG 38, VSOCK 40, XDP 44
        assert outcome(machine, number, family) == errno.EAFNOSUPPORT


@both
def test_other_calls_are_allowed_and_later_ones_do_not_exist(machine: str) -> None:
    refused = set(NUMBERS[machine].values())

    assert {outcome(machine, number) for number in range(463) if number not in refused} == {ALLOW}
    assert {outcome(machine, number) for number in (463, 500, 1 << 20, 0xFFFFFFFF)} == {errno.ENOSYS}


@pytest.mark.parametrize(("machine", "foreign"), [("x86_64", "i386"), ("aarch64", "arm"), ("x86_64", "aarch64")])
def test_a_call_by_the_numbers_of_another_architecture_ends_the_process(machine: str, foreign: str) -> None:
    assert outcome(machine, 1, architecture=foreign) == KILL


def test_the_second_set_of_numbers_of_x86_does_not_exist() -> None:
    assert outcome("x86_64", 0x40000000 | NUMBERS["x86_64"]["keyctl"]) == errno.ENOSYS


def test_an_architecture_whose_numbers_are_unknown_has_no_filter() -> None:
    assert system_call_filter("riscv64") is None


def test_both_architectures_refuse_the_same() -> None:
    only_pc = {"iopl", "ioperm", "modify_ldt"}

    assert NUMBERS["x86_64"].keys() - only_pc == NUMBERS["aarch64"].keys()
    assert all(len(set(numbers.values())) == len(numbers) for numbers in NUMBERS.values())
