"""A bounded, read-only look into a FAT file system: one file of its root directory, as extents.

No kernel driver ever sees the medium. The layout is Microsoft's "FAT: General Overview of On-Disk
Format" 1.03; where it leaves room, the rule of the kernel's driver (fs/fat) holds. Every count
comes from the medium, so every one is checked before it is used.
"""

import struct
from collections.abc import Iterator, Sequence

from extsloader.image.files import (
    MAX_DIRECTORY,
    Extent,
    File,
    FileSystemError,
    Listing,
    add_extent,
)
from extsloader.image.superblock import Read

_WINDOW = 64 << 10  # bytes of the allocation table that are held at a time

_BOOT = struct.Struct("<11x H B H B H H B H 4x 4x I I 4x I")
_ENTRY_SIZE = 32
_ENTRY = struct.Struct("<11s B 8x H 4x H I")
_FIRST_CLUSTER = 2
_MAX_FAT12 = 4084  # clusters; one more is FAT16 (document, "FAT Type Determination")

_DELETED, _LABEL, _DIRECTORY, _LONG, _LAST = 0xE5, 0x08, 0x10, 0x0F, 0x40
_LONG_PARTS = ((1, 11), (14, 26), (28, 32))  # 13 UTF-16 units of a name


class _Volume:
    """Where things are, all within the medium; and the table, a window at a time."""

    def __init__(self, read: Read, size: int) -> None:
        """Check the boot sector. Raises FileSystemError."""
        boot = read(0, 512)
        if len(boot) < _BOOT.size:
            raise FileSystemError("the boot sector is cut off")
        sector, per_cluster, reserved, fats, root_entries, small, _, fat16, large, fat32, root = (
            _BOOT.unpack_from(boot)
        )
        if sector not in (512, 1024, 2048, 4096) or per_cluster.bit_count() != 1:
            raise FileSystemError(f"sectors of {sector} bytes, {per_cluster} to a cluster")
        total, table = (small or large) * sector, (fat16 or fat32) * sector
        self._table_at: int = reserved * sector
        self._table: int = table
        self.root_at = self._table_at + fats * table
        self.root_size = -(-root_entries * _ENTRY_SIZE // sector) * sector
        self.data_at: int = self.root_at + self.root_size
        self.cluster: int = sector * per_cluster  # bytes
        self.clusters = (total - self.data_at) // self.cluster
        self.root = 0 if fat16 else root
        self._bits = 32 if not fat16 else 12 if self.clusters <= _MAX_FAT12 else 16
        if not (reserved and fats and table and self.clusters > 0 and total <= size):
            raise FileSystemError(f"{total} bytes are claimed, the medium has {size}")
        if (self.clusters + _FIRST_CLUSTER) * self._bits > table * 8:
            raise FileSystemError(f"a table of {table} bytes for {self.clusters} clusters")
        self._read, self._window_at, self._window = read, 0, b""

    def place(self, cluster: int) -> int:
        """Where a cluster begins. Raises FileSystemError for one that is not there."""
        number = cluster - _FIRST_CLUSTER
        if not 0 <= number < self.clusters:
            raise FileSystemError(f"cluster {number} of {self.clusters}")
        return self.data_at + number * self.cluster

    def follow(self, cluster: int) -> int | None:
        """The cluster behind this one; None at the end of the chain."""
        at = cluster * self._bits // 8
        raw = int.from_bytes(self._take(at, -(-self._bits // 16) * 2), "little")
        if at * 8 < cluster * self._bits:  # FAT12: the entry begins in the middle of a byte
            raw >>= 4
        mask = (1 << min(self._bits, 28)) - 1  # the upper four bits of FAT32 are reserved
        return None if raw & mask >= mask - 7 else raw & mask

    def _take(self, at: int, length: int) -> bytes:
        inside = at - self._window_at
        if not 0 <= inside <= len(self._window) - length:
            self._window_at = at
            self._window = self._read(self._table_at + at, min(_WINDOW, self._table - at))
            inside = 0
        found = self._window[inside : inside + length]
        if len(found) < length:
            raise FileSystemError("the allocation table is cut off")
        return found


def list_root(read: Read, size: int, names: Sequence[str]) -> Listing:
    """Find the volume's label, and the first of `names` that is a file of the root directory.

    `size` is the medium's, in bytes. Raises FileSystemError, and what `read` raises.
    """
    wanted = {name.casefold(): rank for rank, name in reversed(list(enumerate(names)))}
    label, best = "", len(names)
    file: File | None = None
    volume = _Volume(read, size)
    for name, short, entry in _read_entries(read, volume):
        _, attributes, high, low, length = _ENTRY.unpack(entry)
        if attributes & _LABEL:
            label = label or entry[:11].decode("ascii", "replace").strip(" ")
        elif not attributes & _DIRECTORY:
            rank = min(wanted.get(n.casefold(), best) for n in (name, short))
            if rank < best:
                # Before FAT32 the high half held something else.
                cluster = high << 16 | low if volume.root else low
                best, file = rank, File(names[rank], cluster, length)
    return Listing(label=label, file=file)


def find_extents(read: Read, size: int, file: File) -> tuple[Extent, ...]:
    """Where the bytes of a file are, in their order. Raises FileSystemError.

    A chain with a loop has no end, so it cannot be as long as the file.
    """
    volume = _Volume(read, size)
    extents: list[Extent] = []
    cluster: int | None = file.node
    left = file.size
    while left > 0:
        if cluster is None:
            raise FileSystemError(f"the chain of {file.name} ends {left} bytes before the file")
        at, length = volume.place(cluster), min(left, volume.cluster)
        add_extent(extents, at, length)
        left -= length
        cluster = volume.follow(cluster)
    if file.size and cluster is not None:
        raise FileSystemError(f"the chain of {file.name} is longer than the file")
    return tuple(extents)


def _read_entries(read: Read, volume: _Volume) -> Iterator[tuple[str, str, bytes]]:
    """Long name, short name and the entry itself, of all that is not deleted."""
    parts: list[bytes] = []  # of a long name, the last part first
    for raw in _split(_read_root(read, volume)):
        if raw[0] == 0:
            return
        if raw[0] == _DELETED:
            parts = []
        elif raw[11] & 0x3F == _LONG:
            parts = [raw] if raw[0] & _LAST else [*parts, raw][:20]
        else:
            yield _long_name(parts, raw), _short_name(raw), raw
            parts = []


def _read_root(read: Read, volume: _Volume) -> Iterator[bytes]:
    if not volume.root:
        yield read(volume.root_at, min(volume.root_size, MAX_DIRECTORY))
        return
    cluster: int | None = volume.root
    for _ in range(max(1, MAX_DIRECTORY // volume.cluster)):
        if cluster is None:
            return
        yield read(volume.place(cluster), volume.cluster)
        cluster = volume.follow(cluster)
    raise FileSystemError(f"the root directory is larger than {MAX_DIRECTORY} bytes")


def _split(chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        whole = len(chunk) - len(chunk) % _ENTRY_SIZE
        yield from (chunk[at : at + _ENTRY_SIZE] for at in range(0, whole, _ENTRY_SIZE))


def _long_name(parts: Sequence[bytes], entry: bytes) -> str:
    """The long name, "" where the parts are not this entry's, as after a write by an old system."""
    checksum = _sum_name(entry[:11])
    order = [part[0] & 0x1F for part in parts]
    if order != list(range(len(parts), 0, -1)) or any(part[13] != checksum for part in parts):
        return ""
    units = b"".join(part[a:b] for part in reversed(parts) for a, b in _LONG_PARTS)
    return units.decode("utf-16-le", "replace").partition("\0")[0]


def _sum_name(name: bytes) -> int:
    total = 0
    for byte in name:
        total = ((total & 1) << 7 | total >> 1) + byte & 0xFF
    return total


def _short_name(entry: bytes) -> str:
    base, extension = (
        entry[a:b].decode("ascii", "replace").rstrip(" ") for a, b in ((0, 8), (8, 11))
    )
    return f"{base}.{extension}" if extension else base
