"""Loop devices on a descriptor (<linux/loop.h>): no path is looked up, no process is started."""

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_LOOP_CTL_GET_FREE: Final = 0x4C82
_LOOP_CONFIGURE: Final = 0x4C0A
_LOOP_GET_STATUS64: Final = 0x4C05
_READ_ONLY: Final = 1  # LO_FLAGS_READ_ONLY
_AUTOCLEAR: Final = 4  # LO_FLAGS_AUTOCLEAR: the last user's end frees the device, also after a kill
# struct loop_info64: device, inode, rdevice, offset, sizelimit; number, encrypt type, encrypt key
# size, flags; file name, crypt name, key; init.
_INFO: Final = struct.Struct("=5Q4I64s64s32s2Q")
_CONFIG: Final = struct.Struct("=2I")  # descriptor, block size (0: default)
_RESERVED: Final = bytes(64)
_TRIES: Final = 16


def _configure(descriptor: int, size: int, name: str) -> tuple[int, str]:
    label = os.fsencode(name)[:63]
    info = _INFO.pack(0, 0, 0, 0, size, 0, 0, 0, _READ_ONLY | _AUTOCLEAR, label, b"", b"", 0, 0)
    config = _CONFIG.pack(descriptor, 0) + info + _RESERVED
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_TRIES):
            node = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            device = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, config)
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:
                    raise
            else:
                return device, node
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, f"others took each of {_TRIES} free loop devices")


@contextmanager
def attached(descriptor: int, size: int, name: str) -> Iterator[str]:
    """The node of a read-only loop device on the first `size` bytes of a file.

    It lasts until this context and every mount of it are gone. The number of a free device may be
    somebody else's a moment later, hence the next one is tried. Raises OSError.
    """
    device, node = _configure(descriptor, size, name)
    try:
        yield node
    finally:
        os.close(device)


def shows(node: str, descriptor: int) -> bool:
    """Whether the loop device reads from the very file of the descriptor. Raises OSError."""
    device = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
    try:
        status = fcntl.ioctl(device, _LOOP_GET_STATUS64, bytes(_INFO.size))
    finally:
        os.close(device)
    backing_device, inode, *_ = _INFO.unpack(status)
    file = os.fstat(descriptor)
    return (backing_device, inode) == (file.st_dev, file.st_ino)


def backing_file(node: str) -> str:
    """What the device reads from, "" when it is free."""
    path = Path("/sys/block") / Path(node).name / "loop/backing_file"
    try:
        return path.read_text().rstrip("\n")
    except FileNotFoundError:
        return ""
