"""A file whose bytes a test makes up at each read: a medium with a mind of its own.

The kernel's FUSE protocol (include/uapi/linux/fuse.h) for one regular file that is its own file
system, so that neither names nor directories are needed. Below a loop device it is a disk.
"""

import errno
import os
import stat
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ctypes import CDLL, get_errno
from pathlib import Path
from threading import Thread

Read = Callable[[int, int], bytes]
"""Offset and length; an OSError is what the reader gets. It may block, until the file is taken
away."""

_IN, _OUT = struct.Struct("<IIQQIIII"), struct.Struct("<IiQ")
_GETATTR, _OPEN, _READ, _RELEASE, _FLUSH, _INIT, _INTERRUPT = 3, 14, 15, 18, 25, 26, 36
_DIRECT_IO = 1  # FOPEN_DIRECT_IO: nothing is cached, each read asks
_libc = CDLL(None, use_errno=True)


@contextmanager
def made_up_file(path: Path, size: int, read: Read, readers: int = 4) -> Iterator[Path]:
    """Mount the file at `path`."""
    path.touch()
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=100444,user_id=0,group_id=0,max_read=131072"
    if _libc.mount(b"extst-fuse", bytes(path), b"fuse.extst", 1, options.encode()):
        raise OSError(get_errno(), "mount")
    threads = [
        Thread(target=_serve, args=(device, size, read), daemon=True) for _ in range(readers)
    ]
    for thread in threads:
        thread.start()
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)
        os.close(device)


def _serve(device: int, size: int, read: Read) -> None:
    with suppress(OSError):
        while True:
            request = os.read(device, 1 << 18)
            _answer(device, request, size, read)


def _answer(device: int, request: bytes, size: int, read: Read) -> None:
    _, opcode, unique, *_ = _IN.unpack_from(request)
    body = request[_IN.size :]
    if opcode == _INTERRUPT:
        return
    try:
        payload, error = _reply(opcode, body, size, read), 0
    except OSError as failure:
        payload, error = b"", -(failure.errno or errno.EIO)
    os.write(device, _OUT.pack(_OUT.size + len(payload), error, unique) + payload)


def _reply(opcode: int, body: bytes, size: int, read: Read) -> bytes:
    if opcode == _INIT:
        major, minor, ahead, _ = struct.unpack_from("<IIII", body)
        fields = (major, min(minor, 31), ahead, 0, 16, 12, 131072, 1, 32, 0)
        return struct.pack("<IIIIHHIIHH28x", *fields)
    if opcode == _GETATTR:
        times = (0, 0, 0, 0, 0, 0)
        kind = stat.S_IFREG | 0o444
        attributes = struct.pack(
            "<QQQQQQIIIIIIIIII",
            1,
            size,
            -(-size // 512),
            *times[:3],
            *times[3:],
            kind,
            1,
            0,
            0,
            0,
            4096,
            0,
        )
        return struct.pack("<QII", 0, 0, 0) + attributes
    if opcode == _OPEN:
        return struct.pack("<QII", 1, _DIRECT_IO, 0)
    if opcode == _READ:
        _, offset, length = struct.unpack_from("<QQI", body)
        return read(offset, max(0, min(length, size - offset)))
    if opcode in (_RELEASE, _FLUSH):
        return b""
    raise OSError(errno.ENOSYS, "not needed here")
