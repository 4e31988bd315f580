"""A bounded, read-only look into an ext4: one file of its root directory, as extents.

No kernel driver ever sees the medium. The layout is that of Documentation/filesystems/ext4; where
it leaves room, the rule of the kernel's driver (fs/ext4) holds. Every number comes from the
medium, so every one is checked before it is used. Neither is the journal replayed nor are
checksums looked at: the image's own digest decides.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from stat import S_ISDIR, S_ISREG

from extsloader.image.files import (
    MAX_DIRECTORY,
    Extent,
    File,
    FileSystemError,
    Listing,
    add_extent,
)
from extsloader.image.superblock import Read
from extsloader.model.reasons import Code

_SUPERBLOCK_AT = 1024
_SUPERBLOCK = struct.Struct("<II 12x II 4x I 4x I 12x H 18x I 8x H 6x I 154x H 80x I")
_MAGIC = 0xEF53
_BLOCKS = tuple(1024 << power for power in range(7))  # bytes
_INODES = tuple(128 << power for power in range(10))
_DESCRIPTORS = (32, 64, 128, 256, 512, 1024)

# Features without which the rest would be misunderstood (incompat). What is not in this list is
# refused: encrypt, inline_data, casefold, meta_bg, compression, journal_dev, large_dir and all
# that is not invented yet. By definition a reader may ignore all others (compat, ro_compat).
_RECOVER, _EXTENTS, _WIDE = 0x4, 0x40, 0x80
_FILE_TYPE, _FLEX_GROUPS, _CHECKSUM_SEED = 0x2, 0x200, 0x2000
_ADMITTED = _RECOVER | _EXTENTS | _WIDE | _FILE_TYPE | _FLEX_GROUPS | _CHECKSUM_SEED

_ROOT = 2  # its inode
_INODE = struct.Struct("<H 2x I 24x I 4x 60s 8x I")
_HAS_EXTENTS = 0x80000
_UNREADABLE = 0x4 | 0x800 | 0x10000000  # compressed, encrypted, data in the inode

_NODE = struct.Struct("<4H 4x")
_NODE_MAGIC = 0xF30A
_MAX_DEPTH = 5  # EXT4_MAX_EXTENT_DEPTH
_MAX_NODES = 2048  # of one file; 65,536 extents need 800 with the smallest blocks
_ENTRY = struct.Struct("<I H H I")
_INDEX = struct.Struct("<I I H 2x")
_MAX_WRITTEN = 32768  # blocks; larger lengths mean allocated, but never written

_NAME = struct.Struct("<I H B x")


@dataclass(frozen=True, slots=True)
class _Inode:
    mode: int
    size: int  # bytes
    flags: int
    root: bytes  # of its extent tree


class _Volume:
    """Where things are, all within the medium."""

    def __init__(self, read: Read, size: int) -> None:
        """Check the superblock. Raises FileSystemError."""
        (
            self.inodes,
            blocks,
            first,
            log,
            group_blocks,
            self._group_inodes,
            magic,
            revision,
            self._inode_size,
            features,
            descriptor,
            blocks_high,
        ) = _SUPERBLOCK.unpack(_take(read, _SUPERBLOCK_AT, _SUPERBLOCK.size))
        _check_features(features if revision else 0)
        self.unclean = bool(features & _RECOVER)
        self._wide = bool(features & _WIDE)
        self._descriptor: int = descriptor if self._wide else 32  # bytes
        self.block: int = 1024 << min(log, 7)  # bytes
        self.blocks: int = blocks | (blocks_high << 32 if self._wide else 0)
        self._table = (first + 1) * self.block  # of groups
        self._read = read
        if magic != _MAGIC or self.block not in _BLOCKS or first != (self.block == _BLOCKS[0]):
            raise FileSystemError(f"blocks of {self.block} bytes from {first} on")
        if self._inode_size not in _INODES or self._inode_size > self.block:
            raise FileSystemError(f"inodes of {self._inode_size} bytes")
        if self._descriptor not in _DESCRIPTORS or not (group_blocks and self._group_inodes):
            raise FileSystemError(f"groups of {group_blocks} blocks")
        if not first < self.blocks <= size // self.block:
            raise FileSystemError(f"{self.blocks * self.block} bytes are claimed, there are {size}")
        self._groups: int = -(-(self.blocks - first) // group_blocks)

    def take(self, number: int) -> bytes:
        """One block. Raises FileSystemError for one that is not there."""
        return _take(self._read, self.place(number, 1), self.block)

    def place(self, number: int, count: int) -> int:
        """Where blocks begin. Raises FileSystemError where one of them is not there."""
        if not 0 < number <= self.blocks - count:
            raise FileSystemError(f"blocks {number} to {number + count} of {self.blocks}")
        return number * self.block

    def find_inode(self, number: int) -> _Inode:
        """Read an inode. Raises FileSystemError for one that is not there."""
        group, index = divmod(number - 1, self._group_inodes)
        if not 0 < number <= self.inodes or group >= self._groups:
            raise FileSystemError(f"inode {number} of {self.inodes}")
        raw = _take(self._read, self._table + group * self._descriptor, self._descriptor)
        table = int.from_bytes(raw[8:12], "little")
        if self._wide:
            table |= int.from_bytes(raw[0x28:0x2C], "little") << 32
        inside, rest = divmod(index * self._inode_size, self.block)
        at = self.place(table + inside, 1) + rest
        mode, low, flags, root, high = _INODE.unpack(_take(self._read, at, _INODE.size))
        return _Inode(mode, high << 32 | low, flags, root)


def list_root(read: Read, size: int, names: Sequence[str]) -> Listing:
    """Find the first of `names` in the root directory; upper and lower case differ.

    `size` is the medium's, in bytes. Raises FileSystemError, E_PATH where the name is that of a
    link, a directory or another thing that is no file; and what `read` raises.
    """
    volume = _Volume(read, size)
    wanted = {name.encode(): rank for rank, name in reversed(list(enumerate(names)))}
    found = min(
        ((wanted[name], inode) for name, inode in _read_names(volume) if name in wanted),
        key=lambda one: one[0],
        default=None,
    )
    if found is None:
        return Listing(unclean=volume.unclean)
    rank, number = found
    inode = volume.find_inode(number)
    if not S_ISREG(inode.mode):
        raise FileSystemError(f"{names[rank]} is no regular file", Code.PATH)
    return Listing(file=File(names[rank], number, inode.size), unclean=volume.unclean)


def find_extents(read: Read, size: int, file: File) -> tuple[Extent, ...]:
    """Where the bytes of a file are, in their order. Raises FileSystemError."""
    volume = _Volume(read, size)
    return _find_extents(volume, volume.find_inode(file.node))


def _check_features(features: int) -> None:
    if strange := features & ~_ADMITTED:
        raise FileSystemError(f"its features 0x{strange:x} are not known here", Code.FS_TYPE)
    if not features & _EXTENTS:
        raise FileSystemError("it is an ext2 or ext3, files have no extents", Code.FS_TYPE)


def _read_names(volume: _Volume) -> Iterator[tuple[bytes, int]]:
    """Names and inodes of the root directory; its index looks like deleted names, by design."""
    root = volume.find_inode(_ROOT)
    if not S_ISDIR(root.mode) or not 0 < root.size <= MAX_DIRECTORY or root.size % volume.block:
        raise FileSystemError(f"a root directory of mode {root.mode:o} and {root.size} bytes")
    for extent in _find_extents(volume, root):
        if extent.offset is None:
            raise FileSystemError("the root directory has a hole")
        first = extent.offset // volume.block
        for number in range(first, first + extent.size // volume.block):
            yield from _split(volume.take(number))


def _split(block: bytes) -> Iterator[tuple[bytes, int]]:
    at = 0
    while at < len(block):
        if len(block) - at < _NAME.size:
            raise FileSystemError("a name is cut off")
        inode, length, name = _NAME.unpack_from(block, at)
        if length in (0, 0xFFFF) and len(block) == _BLOCKS[-1]:  # 65536 does not fit the field
            length = len(block)
        if length < _NAME.size + name or length % 4 or length > len(block) - at:
            raise FileSystemError(f"an entry of {length} bytes for a name of {name}")
        if inode:
            yield block[at + _NAME.size :][:name], inode
        at += length


def _find_extents(volume: _Volume, inode: _Inode) -> tuple[Extent, ...]:
    if inode.flags & _UNREADABLE or not inode.flags & _HAS_EXTENTS:
        raise FileSystemError(f"a file with flags 0x{inode.flags:x}", Code.FS_TYPE)
    if inode.size > volume.block << 32:
        raise FileSystemError(f"a file of {inode.size} bytes")
    extents: list[Extent] = []
    done = 0  # bytes
    end = Extent(inode.size, None, 0)
    for leaf in chain(_walk(volume, inode.root, iter(range(_MAX_NODES))), [end]):
        if leaf.start < done:
            raise FileSystemError("pieces of a file overlap")
        for offset, length in ((None, leaf.start - done), (leaf.offset, leaf.size)):
            size = min(length, inode.size - done)  # room behind the end may be kept for later
            if size > 0:
                add_extent(extents, offset, size)
                done += size
    return tuple(extents)


def _walk(
    volume: _Volume, node: bytes, budget: Iterator[int], depth: int | None = None
) -> Iterator[Extent]:
    """All leaves of an extent tree in their order; as many nodes are read as `budget` has left."""
    magic, entries, room, below = _NODE.unpack_from(node)
    if magic != _NODE_MAGIC or below > _MAX_DEPTH or depth not in (None, below):
        raise FileSystemError(f"a node of an extent tree with magic {magic:x}, depth {below}")
    if not (below == 0 or entries) or entries > room or (room + 1) * _ENTRY.size > len(node):
        raise FileSystemError(f"a node of an extent tree with {entries} entries, {room} fit")
    for at in range(_NODE.size, _NODE.size + entries * _ENTRY.size, _ENTRY.size):
        if not below:
            yield _read_leaf(volume, *_ENTRY.unpack_from(node, at))
        elif next(budget, None) is None:
            raise FileSystemError(f"an extent tree of more than {_MAX_NODES} nodes")
        else:
            _, low, high = _INDEX.unpack_from(node, at)
            yield from _walk(volume, volume.take(high << 32 | low), budget, below - 1)


def _read_leaf(volume: _Volume, first: int, length: int, high: int, low: int) -> Extent:
    count = length - _MAX_WRITTEN if length > _MAX_WRITTEN else length
    offset = volume.place(high << 32 | low, count)
    if not count:
        raise FileSystemError("a piece of nothing")
    return Extent(first * volume.block, offset if count == length else None, count * volume.block)


def _take(read: Read, at: int, length: int) -> bytes:
    found = read(at, length)
    if len(found) < length:
        raise FileSystemError(f"it is cut off at byte {at}")
    return found
