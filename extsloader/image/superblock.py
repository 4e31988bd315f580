"""Bounded readers of superblocks: at most 37 KiB of an untrusted medium, no exception for bytes.

A medium that claims to be two things at once is refused as unknown: otherwise the file system
that a filter saw need not be the one that is used later.
"""

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from zlib import crc32

from extsloader.model.source import FsType, Superblock

Read = Callable[[int, int], bytes]
"""(offset, length) -> bytes; short at the end of the medium, OSError when it cannot be read."""

SQUASHFS_MAGIC = b"hsqs"
SQUASHFS_SIZE = 96
SQUASHFS_COMPRESSORS = {1: "gzip", 4: "xz", 5: "lz4", 6: "zstd"}  # lzma never was the kernel's
SQUASHFS_BLOCK_SIZES = {12 + power: 4096 << power for power in range(9)}  # block_log: bytes

_HEAD = 4096 + 512  # up to the GPT header of a disk with 4096-byte sectors
_SQUASHFS = struct.Struct("<4s I 4x II HH 2x H HH 8x Q 6Q")
_SQUASHFS_ABSENT = (1 << 64) - 1  # of the tables that an image may lack

_EXT_AT = 1024
_EXT = struct.Struct("<II 16x I 4x I 20x H 62x 16s")
_EXT_MAGIC = 0xEF53
_EXT_MAX_LOG = 6  # blocks of 64 KiB

_VFAT = struct.Struct("<11x H B H B 2x H B H 8x II")
_VFAT_SECTORS = (512, 1024, 2048, 4096)
_VFAT_MEDIA = (0xF0, *range(0xF8, 0x100))
_VFAT_LABELLED = 0x29  # BS_BootSig: the label behind it is valid
_VFAT_NO_NAME = "NO NAME"

_NAMED = {b"EXFAT   ": FsType.EXFAT, b"NTFS    ": FsType.NTFS}  # where FAT has its OEM name

_GPT_MAGIC = b"EFI PART"
_GPT_SECTORS = (512, 4096)
_GPT_MAX_START = 1 << 48  # sectors: its byte offset still fits a file offset
_GPT_HEADER = struct.Struct("<12x II 4x Q 40x Q III")
_GPT_ENTRY = struct.Struct("<16s 16x QQ 8x 72s")
_GPT_MAX_TABLE = 32 << 10  # twice the usual 128 entries of 128 bytes

_UNKNOWN = Superblock(fs_type=FsType.UNKNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Squashfs:
    """What a plausible squashfs 4.0 superblock says (Documentation/filesystems/squashfs.rst)."""

    used: int  # bytes of the file system, without padding
    block_size: int  # bytes
    compressor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One used entry of a GPT (UEFI 2.10, 5.3.3)."""

    label: str
    type: str  # GUID, upper case
    first: int  # byte offset on the disk
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class _Table:
    sector: int
    entry_size: int
    entries: bytes


def reader(descriptor: int) -> Read:
    """Read at absolute offsets, so that the descriptor's own position plays no part."""
    return lambda offset, length: os.pread(descriptor, length, offset)


def read_superblock(read: Read) -> Superblock:
    """Tell what the medium holds, `FsType.UNKNOWN` where it is garbage, short or ambiguous.

    Raises only what `read` raises.
    """
    head = read(0, _HEAD)
    parsed = (_squashfs(head), _ext(head), _vfat(head), _other(head), _gpt(read, head))
    claims = [found for found in parsed if found is not None]
    return claims[0] if len(claims) == 1 else _UNKNOWN


def read_squashfs(read: Read) -> Squashfs | None:
    """Read the squashfs superblock at offset 0; None where there is no usable one.

    The kernel's rules (fs/squashfs/super.c) and no tolerance beyond: ours are always exact.
    """
    return _parse_squashfs(read(0, SQUASHFS_SIZE))


def read_partition(read: Read, number: int) -> Partition | None:
    """Read the GPT entry of partition `number` (from 1) of a whole disk; None without one."""
    table = _read_table(read, read(0, _HEAD))
    if table is None or not 1 <= number <= len(table.entries) // table.entry_size:
        return None
    type_guid, first, last, name = _GPT_ENTRY.unpack_from(
        table.entries, (number - 1) * table.entry_size
    )
    if not any(type_guid) or last < first:
        return None
    return Partition(
        label=_text(name, "utf-16-le"),
        type=_guid(type_guid),
        first=first * table.sector,
        size=(last - first + 1) * table.sector,
    )


def _parse_squashfs(head: bytes) -> Squashfs | None:
    if len(head) < SQUASHFS_SIZE:
        return None
    magic, inodes, block_size, fragments, compressor, log, ids, *rest = _SQUASHFS.unpack_from(head)
    major, minor, used, *starts = rest
    if magic != SQUASHFS_MAGIC or (major, minor) != (4, 0) or used >= 1 << 63:
        return None
    if compressor not in SQUASHFS_COMPRESSORS or block_size != SQUASHFS_BLOCK_SIZES.get(log):
        return None
    if not (inodes and ids and _are_in_order(starts, inodes, fragments, ids, used)):
        return None
    return Squashfs(used=used, block_size=block_size, compressor=SQUASHFS_COMPRESSORS[compressor])


def _are_in_order(starts: list[int], inodes: int, fragments: int, ids: int, used: int) -> bool:
    """The kernel takes each table to end where the next one starts (fs/squashfs/super.c)."""
    id_table, xattrs, inode_table, directories, fragment_table, exports = starts
    end = SQUASHFS_SIZE
    for there, start, size in (
        (True, inode_table, 1),
        (True, directories, 0),
        (fragments, fragment_table, _size_index(fragments, 16)),
        (exports != _SQUASHFS_ABSENT, exports, _size_index(inodes, 8)),
        (True, id_table, _size_index(ids, 4)),
        (xattrs != _SQUASHFS_ABSENT, xattrs, 16),
    ):
        if not there:
            continue
        if start < end:
            return False
        end = start + size
    return end <= used


def _size_index(entries: int, size: int) -> int:
    """Bytes of the index of a table: 8 for each metadata block of 8 KiB."""
    return -(-entries * size // 8192) * 8


# None from here on: no claim to be of this type; _UNKNOWN: the claim is there, and it is broken.


def _squashfs(head: bytes) -> Superblock | None:
    if not head.startswith(SQUASHFS_MAGIC):
        return None
    found = _parse_squashfs(head)
    return Superblock(fs_type=FsType.SQUASHFS, used=found.used) if found else _UNKNOWN


def _ext(head: bytes) -> Superblock | None:
    """The two magic bytes alone turn up in compressed data, so plausible fields are the claim."""
    if len(head) < _EXT_AT + _EXT.size:
        return None
    inodes, blocks, log, per_group, magic, label = _EXT.unpack_from(head, _EXT_AT)
    if magic != _EXT_MAGIC or log > _EXT_MAX_LOG or not (inodes and blocks and per_group):
        return None
    return Superblock(fs_type=FsType.EXT, label=_text(label), used=blocks << (10 + log))


def _vfat(head: bytes) -> Superblock | None:
    """The kernel asks for neither jump nor name (fs/fat/inode.c), other readers go by the name."""
    named = head[82:90] == b"FAT32   " or head[54:59] in (b"FAT12", b"FAT16")
    broken = _UNKNOWN if named and head[510:512] == b"\x55\xaa" else None
    if len(head) < min(_VFAT_SECTORS):
        return broken
    sector, cluster, reserved, fats, small, media, fat16, large, fat32 = _VFAT.unpack_from(head)
    if sector not in _VFAT_SECTORS or cluster.bit_count() != 1 or media not in _VFAT_MEDIA:
        return broken
    if not (reserved and fats and (fat16 or fat32) and (small or large)):
        return broken
    # The extended boot record lies behind the fields that only FAT32 has.
    signature, label = (head[38], head[43:54]) if fat16 else (head[66], head[71:82])
    name = _text(label) if signature == _VFAT_LABELLED else ""
    return Superblock(
        fs_type=FsType.VFAT,
        label="" if name == _VFAT_NO_NAME else name,
        used=(small or large) * sector,
    )


def _other(head: bytes) -> Superblock | None:
    """What sticks are formatted with and nobody here can read: only worth its name."""
    named = _NAMED.get(head[3:11]) if head[510:512] == b"\x55\xaa" else None
    return Superblock(fs_type=named) if named else None


def _gpt(read: Read, head: bytes) -> Superblock | None:
    if not any(head.startswith(_GPT_MAGIC, sector) for sector in _GPT_SECTORS):
        return None
    return Superblock(fs_type=FsType.GPT) if _read_table(read, head) else _UNKNOWN


def _read_table(read: Read, head: bytes) -> _Table | None:
    """Read the primary table, both checksums checked (UEFI 2.10, 5.3.2).

    The backup at the end of the disk is not tried: a damaged table is no place to take names from.
    """
    sectors = [sector for sector in _GPT_SECTORS if head.startswith(_GPT_MAGIC, sector)]
    if len(sectors) != 1:
        return None
    header = head[sectors[0] : sectors[0] + 512]
    if not _is_sound(header):
        return None
    *_, start, count, entry_size, checksum = _GPT_HEADER.unpack_from(header)
    if entry_size < _GPT_ENTRY.size or not 0 < count * entry_size <= _GPT_MAX_TABLE:
        return None
    if not 1 < start < _GPT_MAX_START:
        return None
    entries = read(start * sectors[0], count * entry_size)
    return _Table(sectors[0], entry_size, entries) if crc32(entries) == checksum else None


def _is_sound(header: bytes) -> bool:
    if len(header) < _GPT_HEADER.size:
        return False
    size, checksum, own, *_ = _GPT_HEADER.unpack_from(header)
    if own != 1 or not _GPT_HEADER.size <= size <= len(header):
        return False
    return bool(crc32(header[:16] + bytes(4) + header[20:size]) == checksum)


def _guid(raw: bytes) -> str:
    """Write a GUID: the first three fields are little-endian (UEFI 2.10, appendix A)."""
    first, second, third, rest = struct.unpack("<IHH8s", raw)
    return f"{first:08X}-{second:04X}-{third:04X}-{rest[:2].hex()}-{rest[2:].hex()}".upper()


def _text(raw: bytes, encoding: str = "utf-8") -> str:
    return raw.decode(encoding, "replace").partition("\0")[0].strip()
