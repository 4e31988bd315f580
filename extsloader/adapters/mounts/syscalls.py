"""The system calls that Python's `os` does not have; each raises OSError."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EINVAL
from typing import Final

# <linux/mount.h>
MS_RDONLY: Final = 0x1
MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_SYNCHRONOUS: Final = 0x10
MS_REMOUNT: Final = 0x20
MS_MANDLOCK: Final = 0x40
MS_DIRSYNC: Final = 0x80
MS_NOATIME: Final = 0x400
MS_NODIRATIME: Final = 0x800
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_UNBINDABLE: Final = 1 << 17
MS_PRIVATE: Final = 1 << 18
MS_SLAVE: Final = 1 << 19
MS_SHARED: Final = 1 << 20
MS_RELATIME: Final = 1 << 21
MS_STRICTATIME: Final = 1 << 24

UMOUNT_NOFOLLOW: Final = 8

# <linux/openat2.h>
RESOLVE_NO_XDEV: Final = 0x01
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
NO_LINKS: Final = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS

_OPENAT2: Final = 437  # the same number on every architecture (asm-generic/unistd.h)
_AT_FDCWD: Final = -100
_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def _encode(text: str | None) -> bytes | None:
    if text is None:
        return None
    if "\0" in text:  # C would silently take the part before it
        raise OSError(EINVAL, "there is a NUL character in it")
    return os.fsencode(text)


def _check(result: int, path: str | None = None) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return result


def mount(source: str | None, target: str, fs_type: str | None, flags: int, data: str = "") -> None:
    """Attach a file system or change one that is attached."""
    arguments = (_encode(source), _encode(target), _encode(fs_type))
    _check(_libc.mount(*arguments, ctypes.c_ulong(flags), _encode(data or None)))


def umount(target: str) -> None:
    """As umount2(2), never lazily (MNT_DETACH would hide that somebody still uses it)."""
    _check(_libc.umount2(_encode(target), UMOUNT_NOFOLLOW))


@contextmanager
def opened(
    path: str,
    flags: int = os.O_PATH,
    *,
    resolve: int = NO_LINKS,
    dir_fd: int = _AT_FDCWD,
) -> Iterator[int]:
    """As openat2(2), closed on leaving; by default a mere handle to a path free of links."""
    how = _OpenHow(flags | os.O_CLOEXEC, 0, resolve)
    arguments = (ctypes.c_int(dir_fd), _encode(path), ctypes.byref(how), ctypes.sizeof(how))
    descriptor = _check(_libc.syscall(ctypes.c_long(_OPENAT2), *arguments), path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def by_descriptor(descriptor: int) -> str:
    """A path that leads to exactly the opened file, whatever happens to its name meanwhile."""
    return f"/proc/self/fd/{descriptor}"
