"""Is what was opened still the medium that discovery saw? Asked after open and after reading.

A path is no identity: the kernel gives `/dev/sdb1` to the next stick. Device number, DISKSEQ and
size tell, asked of the open descriptor, so that nothing is looked up twice.
"""

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable

from extsloader.model.errors import ImageRefusedError
from extsloader.model.reasons import Code
from extsloader.model.source import Source, SourceKind, device_generation, file_generation

# include/uapi/linux/fs.h; the numbers are those of every architecture with the generic _IOC.
BLKGETSIZE64 = 0x80081272
BLKGETDISKSEQ = 0x80081280

FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""No link is followed, and neither a FIFO nor a drive without medium makes `open` wait."""

_GONE = frozenset({errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.ENOMEDIUM, errno.ENOTDIR})
_CODES = dict.fromkeys(_GONE, Code.GONE) | {
    errno.EBUSY: Code.BUSY,
    errno.ELOOP: Code.PATH,
    errno.EISDIR: Code.PATH,
}
_CHANGED = "the medium was changed; the new one is looked at by itself"
_HINTS = {
    Code.GONE: "plug it in again",
    Code.BUSY: "find out who holds it with fuser",
    Code.PATH: "put the file itself there, not a link or a directory",
    Code.IO: "read the kernel's log, and try another medium",
}


def open_source(source: Source) -> int:
    """Open a source for reading; the caller owns the descriptor.

    Raises ImageRefusedError: E_GONE for another medium, E_BUSY, E_PATH for a link, or E_IO.
    """
    return _open(source, source.id.path, lambda found: check_source(found, source))


def open_disk(source: Source) -> int:
    """Open the whole disk that a partition lies on; the caller owns the descriptor.

    Raises ImageRefusedError as `open_source` does.
    """
    return _open(source, source.disk, lambda found: _check_disk(found, source))


def check_source(descriptor: int, source: Source) -> None:
    """Compare the open descriptor with what discovery saw.

    Raises ImageRefusedError: E_GONE for another medium, or E_IO.
    """
    identify = _identify_device if source.kind is SourceKind.DEVICE else _identify_file
    try:
        got = identify(descriptor, source.partition)
    except OSError as error:
        raise refusal(source, error) from error
    expected = (source.devno, source.id.generation, source.size)
    if got != expected:
        raise ImageRefusedError(
            Code.GONE,
            f"cannot read {source.id}: expected {_medium(*expected)}, got {_medium(*got)}",
            _CHANGED,
        )


def refusal(source: Source, error: OSError) -> ImageRefusedError:
    """What an error of `open` or `read` on a source means."""
    code = _CODES.get(error.errno or 0, Code.IO)
    reason = (error.strerror or str(error)).lower()
    return ImageRefusedError(code, f"cannot read {source.id}: {reason}", _HINTS[code])


def _open(source: Source, path: str, check: Callable[[int], None]) -> int:
    try:
        descriptor = os.open(path, FLAGS)
        try:
            check(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
    except OSError as error:
        raise refusal(source, error) from error
    return descriptor


def _check_disk(descriptor: int, source: Source) -> None:
    """Its DISKSEQ is the partition's; without one, size and place of the entry must do."""
    diskseq = _diskseq(descriptor) if stat.S_ISBLK(os.fstat(descriptor).st_mode) else "no disk"
    if device_generation(diskseq, source.partition, source.devno) != source.id.generation:
        reason = f"expected {source.disk} to be disk {source.id.generation}, got {diskseq}"
        raise ImageRefusedError(Code.GONE, f"cannot read {source.id}: {reason}", _CHANGED)


def _identify_device(descriptor: int, partition: int) -> tuple[str, str, int]:
    status = os.fstat(descriptor)
    if not stat.S_ISBLK(status.st_mode):
        return "", "no block device", status.st_size
    devno = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    generation = device_generation(_diskseq(descriptor), partition, devno)
    return devno, generation, _ask(descriptor, BLKGETSIZE64)


def _identify_file(descriptor: int, _partition: int) -> tuple[str, str, int]:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        return "", "no regular file", status.st_size
    generation = file_generation(status.st_ino, status.st_size, status.st_ctime_ns)
    return "", generation, status.st_size


def _diskseq(descriptor: int) -> str:
    """Ask for the whole disk's number, which a partition's descriptor gives as well."""
    try:
        return str(_ask(descriptor, BLKGETDISKSEQ))
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL):  # before Linux 5.15
            return ""
        raise


def _ask(descriptor: int, request: int) -> int:
    answer: tuple[int] = struct.unpack("=Q", fcntl.ioctl(descriptor, request, bytes(8)))
    return answer[0]


def _medium(devno: str, generation: str, size: int) -> str:
    return f"{generation} of {size} bytes" + (f" at {devno}" if devno else "")
