"""The trailer: how an image carries its own signed envelope, and where it is found.

It is found from the front, never from the end of the medium, so that a partition larger than the
image works as a file does: the squashfs says its length, the length of the hash tree follows from
that, and the trailer starts at the next byte. Layout: docs/image-format.md.
"""

import os
import struct
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from extsloader.image.superblock import Read, read_squashfs, reader
from extsloader.image.verity import BLOCK, image_size, round_up, write_all
from extsloader.model.errors import ImageRefusedError
from extsloader.model.reasons import Code

MAX_ENVELOPE = 64 << 10  # bytes
SIDECAR_SUFFIX = ".manifest.json"

_MAGIC = b"EXTSTRLR"
_VERSION = 1
_LOCATOR = struct.Struct("<8s I I Q 8x 32s")  # 64 bytes
_HINT = "sign the image with mkext"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trailer:
    """What was read; the envelope is bytes from outside until its signature is checked."""

    image_size: int  # bytes before the trailer
    envelope: bytes


def find_end(read: Read) -> int:
    """Where the hash tree ends and the trailer starts, in bytes, from the squashfs alone.

    Raises ImageRefusedError(E_FS_TYPE) where there is no squashfs.
    """
    squashfs = read_squashfs(read)
    if squashfs is None:
        raise ImageRefusedError(
            Code.FS_TYPE, "cannot find the image: the medium does not start with a squashfs"
        )
    return image_size(round_up(squashfs.used) // BLOCK)


def read_trailer(read: Read, end: int) -> Trailer | None:
    """Read the trailer that starts at `end`; None where there is none.

    At most 64 KiB and 64 bytes are read. Raises ImageRefusedError when there is a broken one.
    """
    head = read(end, _LOCATOR.size)
    if len(head) < _LOCATOR.size or not head.startswith(_MAGIC):
        return None
    _, version, length, size, digest = _LOCATOR.unpack(head)
    if version != _VERSION:
        raise _refused(f"version {_VERSION} expected, {version} got", "update extsloader")
    if size != end:
        raise _refused(f"it belongs to an image of {size} bytes, this one has {end}")
    if not 0 < length <= MAX_ENVELOPE:
        raise _refused(
            f"an envelope of 1 to {MAX_ENVELOPE} bytes expected, {length} got", code=Code.LIMIT
        )
    envelope = read(end + _LOCATOR.size, length)
    if len(envelope) < length:
        raise _refused(f"an envelope of {length} bytes expected, {len(envelope)} got")
    if sha256(envelope).digest() != digest:
        raise _refused("the checksum of the envelope does not match")
    return Trailer(image_size=size, envelope=envelope)


def load_trailer(path: str) -> Trailer | None:
    """Read the trailer of an image file; None where there is none.

    Raises ImageRefusedError for a broken one or no squashfs, OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        read = reader(descriptor)
        return read_trailer(read, find_end(read))
    finally:
        os.close(descriptor)


def encode_trailer(size: int, envelope: bytes) -> bytes:
    """The trailer of an image of `size` bytes, padded to whole blocks."""
    if not 0 < len(envelope) <= MAX_ENVELOPE:
        raise ImageRefusedError(
            Code.LIMIT,
            f"cannot write the trailer: an envelope of 1 to {MAX_ENVELOPE} bytes expected, "
            f"{len(envelope)} got",
        )
    locator = _LOCATOR.pack(_MAGIC, _VERSION, len(envelope), size, sha256(envelope).digest())
    trailer = locator + envelope
    return trailer.ljust(round_up(len(trailer)), b"\0")


def append_trailer(path: str, envelope: bytes) -> None:
    """Put the trailer behind the hash tree; an older trailer is replaced.

    Raises ImageRefusedError when the image has no squashfs or its hash tree is not there, OSError.
    """
    with Path(path).open("r+b", buffering=0) as file:
        end = find_end(reader(file.fileno()))
        size = os.fstat(file.fileno()).st_size
        if size < end:
            raise ImageRefusedError(
                Code.SIZE, f"cannot write the trailer of {path}: {end} bytes expected, {size} got"
            )
        trailer = encode_trailer(end, envelope)
        file.truncate(end)
        write_all(file.fileno(), trailer, end)


def _refused(reason: str, hint: str = _HINT, code: Code = Code.LAYOUT) -> ImageRefusedError:
    return ImageRefusedError(code, f"cannot read the trailer: {reason}", hint)
