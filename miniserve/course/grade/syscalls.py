"""Writes the filter that bwrap puts around a learner's kernel: a small BPF program that refuses some system calls.

Namespaces hide files, processes and the network. They don't cover everything two runs could share, so these calls are
refused on top. Every refusal is an error that a program can handle, except on a foreign architecture, which ends the
process: the numbers below mean other calls there. Knows no sandbox.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Iterator

# --- what is refused, and why ---------------------------------------------------------------------------------------

_KEYRINGS = (
    "add_key",
    "request_key",
    "keyctl",
)  # they outlive the process, and no namespace separates two users of one
_OTHERS = (  # reading and changing another process: our own launcher, or a second kernel's
    "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "process_mrelease", "kcmp", "pidfd_getfd",
    "migrate_pages", "move_pages",
)  # fmt: skip
_NAMESPACES = ("unshare", "setns")  # a user namespace gives back every right that we dropped; also `clone`, below
_MOUNTS = (
    "mount", "umount2", "pivot_root", "chroot", "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick",
    "mount_setattr", "name_to_handle_at", "open_by_handle_at",
)  # fmt: skip
_UNCOUNTED = ("shmget", "msgget", "semget", "mq_open")  # memory that belongs to no process, so nobody's limit counts it
_MACHINE = (  # the whole machine: its clock, its code, its log, its disks; and large, young parts of the kernel
    "bpf", "perf_event_open", "userfaultfd", "fanotify_init", "lookup_dcookie", "modify_ldt", "iopl", "ioperm",
    "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "swapon", "swapoff",
    "acct", "quotactl", "quotactl_fd", "syslog", "settimeofday", "clock_settime", "clock_adjtime", "sethostname",
    "setdomainname", "vhangup",
)  # fmt: skip
# Libraries try these first and have a second way, which they take if the call "doesn't exist".
_ABSENT = (
    "clone3",  # a filter can't read its flags, which lie in memory; then glibc calls `clone`
    "memfd_create", "memfd_secret",  # files in memory that lie on no disk of a limited size
    "io_uring_setup", "io_uring_enter", "io_uring_register",  # reads and writes that no filter sees
)  # fmt: skip
_REFUSED = {
    **dict.fromkeys((*_KEYRINGS, *_OTHERS, *_NAMESPACES, *_MOUNTS, *_UNCOUNTED, *_MACHINE), errno.EPERM),
    **dict.fromkeys(_ABSENT, errno.ENOSYS),
}
_NEW_NAMESPACES = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_FAMILIES = (1, 2, 10, 16)  # UNIX, INET, INET6, NETLINK: these stay in the network namespace; VSOCK reaches the host
_LAST = 462  # mseal, Linux 6.10. What came later is unknown here, and so "doesn't exist"

# --- their numbers ----------------------------------------------------------------------------------------------------

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_BOTH = {  # since Linux 5.1 all architectures use the same numbers
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429,
    "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "clone3": 435, "pidfd_getfd": 438,
    "process_madvise": 440, "mount_setattr": 442, "quotactl_fd": 443, "memfd_secret": 447, "process_mrelease": 448,
}  # fmt: skip
NUMBERS = {
    "x86_64": _BOTH | {
        "shmget": 29, "socket": 41, "socketpair": 53, "clone": 56, "semget": 64, "msgget": 68, "ptrace": 101,
        "syslog": 103, "vhangup": 153, "modify_ldt": 154, "pivot_root": 155, "chroot": 161, "acct": 163,
        "settimeofday": 164, "mount": 165, "umount2": 166, "swapon": 167, "swapoff": 168, "reboot": 169,
        "sethostname": 170, "setdomainname": 171, "iopl": 172, "ioperm": 173, "init_module": 175,
        "delete_module": 176, "quotactl": 179, "lookup_dcookie": 212, "clock_settime": 227, "mq_open": 240,
        "kexec_load": 246, "add_key": 248, "request_key": 249, "keyctl": 250, "migrate_pages": 256, "unshare": 272,
        "move_pages": 279, "perf_event_open": 298, "fanotify_init": 300, "name_to_handle_at": 303,
        "open_by_handle_at": 304, "clock_adjtime": 305, "setns": 308, "process_vm_readv": 310,
        "process_vm_writev": 311, "kcmp": 312, "finit_module": 313, "memfd_create": 319, "kexec_file_load": 320,
        "bpf": 321, "userfaultfd": 323,
    },
    "aarch64": _BOTH | {
        "lookup_dcookie": 18, "umount2": 39, "mount": 40, "pivot_root": 41, "chroot": 51, "vhangup": 58,
        "quotactl": 60, "acct": 89, "unshare": 97, "kexec_load": 104, "init_module": 105, "delete_module": 106,
        "clock_settime": 112, "syslog": 116, "ptrace": 117, "reboot": 142, "sethostname": 161, "setdomainname": 162,
        "settimeofday": 170, "mq_open": 180, "msgget": 186, "semget": 190, "shmget": 194, "socket": 198,
        "socketpair": 199, "add_key": 217, "request_key": 218, "keyctl": 219, "clone": 220, "swapon": 224,
        "swapoff": 225, "migrate_pages": 238, "move_pages": 239, "perf_event_open": 241, "fanotify_init": 262,
        "name_to_handle_at": 264, "open_by_handle_at": 265, "clock_adjtime": 266, "setns": 268,
        "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272, "finit_module": 273, "memfd_create": 279,
        "bpf": 280, "userfaultfd": 282, "kexec_file_load": 294,
    },
}  # fmt: skip

# --- the program ------------------------------------------------------------------------------------------------------

_LOAD, _RETURN = 0x20, 0x06  # BPF_LD | BPF_W | BPF_ABS, BPF_RET | BPF_K
_EQUAL, _AT_LEAST, _ANY_BIT = 0x15, 0x35, 0x45  # BPF_JMP | BPF_K with BPF_JEQ, BPF_JGE, BPF_JSET
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENT_AT = 0, 4, 16  # in struct seccomp_data; of the argument its low half
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, constant


def system_call_filter(machine: str = "") -> bytes | None:
    """Return the program for bwrap's `--seccomp`; None for an architecture whose numbers are not known here."""
    machine = machine or platform.machine()
    if machine not in NUMBERS:
        return None
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in _program(machine))


def _program(machine: str) -> Iterator[Instruction]:
    numbers = NUMBERS[machine]
    yield _LOAD, 0, 0, _ARCHITECTURE_AT
    yield _EQUAL, 1, 0, _ARCHITECTURES[machine]
    yield _RETURN, 0, 0, _KILL
    yield _LOAD, 0, 0, _NUMBER_AT
    yield _AT_LEAST, 0, 1, _LAST + 1  # this includes all of x32
    yield _RETURN, 0, 0, _ERROR | errno.ENOSYS
    for name, error in _REFUSED.items():
        if name in numbers:
            yield _EQUAL, 0, 1, numbers[name]
            yield _RETURN, 0, 0, _ERROR | error
    yield _EQUAL, 0, 4, numbers["clone"]
    yield _LOAD, 0, 0, _ARGUMENT_AT
    yield _ANY_BIT, 0, 1, _NEW_NAMESPACES
    yield _RETURN, 0, 0, _ERROR | errno.EPERM
    yield _RETURN, 0, 0, _ALLOW
    for name in ("socket", "socketpair"):
        yield _EQUAL, 0, 3 + len(_FAMILIES), numbers[name]
        yield _LOAD, 0, 0, _ARGUMENT_AT
        for left, family in zip(range(len(_FAMILIES), 0, -1), _FAMILIES, strict=True):
            yield _EQUAL, left, 0, family
        yield _RETURN, 0, 0, _ERROR | errno.EAFNOSUPPORT
        yield _RETURN, 0, 0, _ALLOW
    yield _RETURN, 0, 0, _ALLOW
