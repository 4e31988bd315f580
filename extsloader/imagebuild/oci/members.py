"""The members of a layer's tar file, read under bounds.

Python's tarfile trusts an archive: it takes a PAX header or a long name into memory whole, however
long it says to be, and follows negative sizes back to where it was (CVE-2025-8194).
"""

import tarfile
from pathlib import Path
from typing import IO, cast

from extsloader.imagebuild.tree import Kind, make_inside
from extsloader.model.errors import ImageRefusedError
from extsloader.model.reasons import Code

MAX_HEADER = 1 << 20  # bytes, of one member with its PAX header, as Go's archive/tar allows
MAX_HEADERS = 512 << 20  # bytes, of all members of a layer: they are held in memory

_END = 2 * tarfile.BLOCKSIZE  # of zeros (POSIX.1-2017, pax, "ustar Interchange Format")
_MAX_PATH = 4096  # bytes with the final zero, the kernel's PATH_MAX
_LARGEST = 2**32 - 2  # owner, group or time; (uid_t)-1 means "unchanged" in chown(2)
_KINDS = {kind.value for kind in (Kind.FILE, Kind.DIRECTORY, Kind.LINK, Kind.FIFO)}

Members = list[tuple[str, tarfile.TarInfo]]
"""Members by their path inside the tree, in their order."""


class _Headers:
    """A file as far as tarfile may read it to find the next member."""

    def __init__(self, file: IO[bytes]) -> None:
        self.seek, self.tell, self._read = file.seek, file.tell, file.read
        self.left = MAX_HEADER  # bytes before the next member
        self._total = MAX_HEADERS

    def read(self, size: int) -> bytes:
        """Raises tarfile.ReadError for too much, or for the rest of the file."""
        if not 0 <= size <= min(self.left, self._total):
            raise tarfile.ReadError("too long a header")
        self.left -= size
        self._total -= size
        return self._read(size)


def list_members(tar: Path, left: int) -> Members:
    """All members, `left` at most; absolute names are meant from the root.

    Raises ImageRefusedError.
    """
    found: Members = []
    size = tar.stat().st_size
    with tar.open("rb") as file:
        headers = _Headers(file)
        try:
            # tarfile only reads, seeks and tells.
            with tarfile.open(fileobj=cast("IO[bytes]", headers), mode="r:") as archive:
                for member in archive:
                    headers.left = MAX_HEADER
                    if len(found) >= left:
                        raise refuse(tar, Code.LIMIT, "too many files for one image")
                    _check(member, tar, size)
                    if path := make_inside(member.name, tar.name):
                        found.append((path, member))
            # tarfile takes a damaged or cut header for the end.
            file.seek(archive.offset)
            rest = file.read(_END)
            if any(rest) or len(rest) % tarfile.BLOCKSIZE:
                raise tarfile.ReadError("invalid header")
        except (tarfile.TarError, ValueError, IndexError, RecursionError) as error:
            raise refuse(tar, Code.LAYOUT, f"it is no tar file: {error}") from error
    return found


def _check(member: tarfile.TarInfo, tar: Path, size: int) -> None:
    name = f"{member.name[:100]!r}"
    if member.size < 0 or (member.isreg() and member.offset_data + member.size > size):
        raise refuse(tar, Code.SIZE, f"{name} goes beyond its end")
    if max(len(member.name), len(member.linkname)) >= _MAX_PATH:
        raise refuse(tar, Code.LIMIT, f"{name} has or links to a path of {_MAX_PATH} bytes or more")
    if "\0" in member.name + member.linkname or (member.issym() and not member.linkname):
        raise refuse(tar, Code.PATH, f"{name} has or links to a path that cannot be")
    for number in (member.uid, member.gid, member.mtime):
        if not 0 <= number <= _LARGEST:
            raise refuse(tar, Code.LIMIT, f"{name} has {number} as owner, group or time")
    known = member.isreg() or member.islnk() or member.type in _KINDS
    if not known or member.issparse():
        raise refuse(tar, Code.BUNDLE, f"{name} is of a kind that is not accepted")


def refuse(tar: Path, code: Code, reason: str) -> ImageRefusedError:
    """The error about an unpacked layer, which is named by its digest."""
    return ImageRefusedError(code, f"cannot use the layer {tar.stem}: {reason}")
