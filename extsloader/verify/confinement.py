"""What a helper takes away from itself before it reads a byte of a medium.

It stays root, because devices and the store are root's, but a root that can do nothing else: no
capability, no program, no file to write but in the store, no network, no signal to anybody. What
a kernel does not have is left out: each of these stands for itself.
docs/adr/0019-confinement.md has what was chosen, and why.
"""

import ctypes
import errno
import os
import platform
import resource
import signal
import struct
from collections.abc import Iterable
from contextlib import suppress

LIMITS = {
    resource.RLIMIT_AS: 1 << 30,  # a bomb hits this before it hits the device
    resource.RLIMIT_CPU: 900,  # seconds; beyond every deadline, for a daemon that lost us
    resource.RLIMIT_NOFILE: 64,
    resource.RLIMIT_CORE: 0,  # nothing of the medium ends up in a core file
}

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38  # include/uapi/linux/prctl.h
_CLONE_NEWUTS, _CLONE_NEWIPC, _CLONE_NEWNET = 0x04000000, 0x08000000, 0x40000000  # sched.h

# include/uapi/linux/landlock.h; system call numbers are the same everywhere.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PATH_BENEATH = 1
_EXECUTE, _WRITE, _REMOVE_FILE, _MAKE_REG, _REFER, _TRUNCATE = 1, 2, 32, 256, 1 << 13, 1 << 14
_REMOVE_DIR, _MAKE_OTHERS = 16, 64 | 128 | 512 | 1024 | 2048 | 4096
_ALL_TCP, _ALL_SCOPES = 3, 3  # bind and connect; signals and abstract sockets

# System calls that no helper needs, by the numbers of the two architectures (asm/unistd.h). It
# makes threads and reads files; these are the ways to other processes and into rare kernel code.
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # include/uapi/linux/audit.h
_REFUSED = {
    "socket": (41, 198),
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "pidfd_send_signal": (424, 424),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "execve": (59, 221),
    "execveat": (322, 281),
    "mount": (165, 40),
    "fsopen": (430, 430),
    "open_tree": (428, 428),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "io_uring_setup": (425, 425),
    "userfaultfd": (323, 282),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "kexec_load": (246, 104),
}

_libc = ctypes.CDLL(None, use_errno=True)


def confine(writable: str) -> None:
    """Die with the daemon, and keep reading files and writing below `writable`, "" for nowhere.

    Raises OSError for a kernel that has what is asked for and refuses it.
    """
    limit_resources()
    leave_namespaces()
    drop_capabilities()
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # A change of credentials would forget it (commit_creds, kernel/cred.c): after the drop.
    _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    restrict_files(writable)
    refuse_calls(platform.machine())


def limit_resources() -> None:
    """Bound memory, time and descriptors; a lower limit stays."""
    for kind, limit in LIMITS.items():
        hard = resource.getrlimit(kind)[1]
        value = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (value, value))


def leave_namespaces() -> None:
    """No network, no System V objects of others. Not root: no right to it, and none to lose.

    The mounts stay the daemon's: a copy would keep devices busy that it unmounts, and without
    capabilities nobody can mount.
    """
    with suppress(PermissionError):
        _call("unshare", _CLONE_NEWNET | _CLONE_NEWIPC | _CLONE_NEWUTS)


def drop_capabilities() -> None:
    """All of them: root owns the devices, the keys and the store (capabilities(7))."""
    header = struct.pack("=Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, ourselves
    _call("capset", header, bytes(24))


def restrict_files(writable: str) -> None:
    """Landlock: write below one directory, execute nothing (userspace-api/landlock.rst)."""
    version = _libc.syscall(_CREATE_RULESET, None, 0, 1)
    if version < 1:
        return  # not built, or not switched on
    newer = (_REFER if version > 1 else 0) | (_TRUNCATE if version > 2 else 0)  # noqa: PLR2004
    granted = _WRITE | _REMOVE_FILE | _MAKE_REG | newer
    handled = granted | _EXECUTE | _REMOVE_DIR | _MAKE_OTHERS
    fields = (handled, _ALL_TCP, _ALL_SCOPES)[: 1 + (version > 3) + (version > 5)]  # noqa: PLR2004
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    ruleset = _syscall(_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        if os.path.isdir(writable):  # noqa: PTH112 - "" is no directory
            _allow(ruleset, writable, granted)
        _syscall(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def refuse_calls(machine: str) -> None:
    """Seccomp: what no helper needs fails with EPERM (userspace-api/seccomp_filter.rst)."""
    if machine not in _AUDIT_ARCH:
        return
    column = list(_AUDIT_ARCH).index(machine)
    program = filter_program(
        _AUDIT_ARCH[machine], [numbers[column] for numbers in _REFUSED.values()]
    )
    buffer = ctypes.create_string_buffer(program)
    fprog = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    _call("prctl", 22, 2, fprog, 0, 0)  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def filter_program(architecture: int, numbers: Iterable[int]) -> bytes:
    """Classic BPF over struct seccomp_data: kill for another architecture, refuse the numbers."""
    load, equal, answer = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
    kill, allow, refuse = 0x80000000, 0x7FFF0000, 0x00050000 | errno.EPERM
    refused = sorted(numbers)
    program = [(load, 0, 0, 4), (equal, 1, 0, architecture), (answer, 0, 0, kill), (load, 0, 0, 0)]
    program += [(equal, len(refused) - index, 0, number) for index, number in enumerate(refused)]
    program += [(answer, 0, 0, allow), (answer, 0, 0, refuse)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _allow(ruleset: int, path: str, rights: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", rights, descriptor)
        _syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)


def _syscall(number: int, *arguments: int | bytes) -> int:
    return _check(_libc.syscall(number, *arguments))


def _call(name: str, *arguments: int | bytes) -> int:
    return _check(getattr(_libc, name)(*arguments))


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
