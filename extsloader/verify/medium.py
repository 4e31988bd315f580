"""One medium, opened once and read at absolute offsets; every failure is an outcome with a name."""

import errno
import fcntl
import os
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from extsloader.image.files import Extent
from extsloader.model.errors import ImageRefusedError
from extsloader.model.reasons import Code
from extsloader.model.source import Source, SourceKind
from extsloader.verify.identity import check_source, open_disk, open_source, refusal


@dataclass(frozen=True, slots=True)
class Medium:
    """An open source; the descriptor is the only way to its bytes."""

    source: Source
    descriptor: int
    extents: tuple[Extent, ...] = ()  # of the file in the medium that is meant; (): all of it

    @property
    def size(self) -> int:
        """Bytes that can be read."""
        return self.extents[-1].start + self.extents[-1].size if self.extents else self.source.size

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes, fewer only at the end. Raises ImageRefusedError."""
        parts = []
        while length:
            buffer = bytearray(length)
            done = self.read_into(memoryview(buffer), offset)
            if not done:
                break
            parts.append(bytes(buffer[:done]))
            offset += done
            length -= done
        return b"".join(parts)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """One read; 0 at the end. Raises ImageRefusedError: E_GONE, or E_IO with the offset."""
        place: int | None = offset
        if self.extents:
            place, length = self._locate(offset)
            buffer = buffer[:length]
        if place is None:
            buffer[:] = bytes(len(buffer))
            return len(buffer)
        try:
            return os.preadv(self.descriptor, [buffer], place)
        except OSError as error:
            raise self._failure(error, place) from error

    def check(self) -> None:
        """Is it still the medium that was seen? Raises ImageRefusedError(E_GONE)."""
        check_source(self.descriptor, self.source)

    def _locate(self, offset: int) -> tuple[int | None, int]:
        """Where a byte of the file is (None: in a hole), and how many follow it there."""
        extent = self.extents[bisect_right(self.extents, offset, key=lambda e: e.start) - 1]
        inside = offset - extent.start
        place = None if extent.offset is None else extent.offset + inside
        return place, max(0, extent.size - inside)

    def _failure(self, error: OSError, offset: int) -> ImageRefusedError:
        """An error of a medium that is not there any more says nothing about its bytes."""
        try:
            self.check()
        except ImageRefusedError as gone:
            return gone
        problem = refusal(self.source, error).problem
        return ImageRefusedError(problem.code, f"{problem.message} at byte {offset}", problem.hint)


@contextmanager
def open_medium(source: Source) -> Iterator[Medium]:
    """Open a source and hold it. Raises ImageRefusedError: E_GONE, E_BUSY, E_PATH, E_IO."""
    with _locked(source):
        descriptor = open_source(source)
        try:
            yield Medium(source, descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _locked(source: Source) -> Iterator[None]:
    """Share the whole disk's lock: who partitions or formats holds it exclusively.

    https://systemd.io/BLOCK_DEVICE_LOCKING
    """
    if source.kind is not SourceKind.DEVICE:
        yield
        return
    descriptor = open_disk(source) if source.disk else open_source(source)
    try:
        _share(descriptor, source.disk or source.id.path)
        yield
    finally:
        os.close(descriptor)


def _share(descriptor: int, node: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno != errno.EWOULDBLOCK:
            raise
        raise ImageRefusedError(
            Code.BUSY,
            f"cannot read {node}: somebody else has locked it",
            f"find out who with lslocks or fuser {node}",
        ) from error
