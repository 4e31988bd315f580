"""An ext4 of mkfs.ext4, damaged byte by byte: never more than the documented error."""

import random
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extsloader.image.ext4 import find_extents, list_root
from extsloader.image.files import Extent, FileSystemError
from extsloader.image.superblock import Read
from tests.fakes.ext4 import change, make, put

NAMES = ("rootfs-pkgs.img", "pkgs.img")
CONTENT = b"".join(number.to_bytes(4) for number in range(1, 75_001))
SUPERBLOCK = 1024


def find(read: Read, size: int) -> tuple[Extent, ...]:
    found = list_root(read, size, NAMES).file
    return find_extents(read, size, found) if found else ()


def refusal(data: bytes) -> FileSystemError:
    with pytest.raises(FileSystemError) as caught:
        find(lambda offset, length: data[offset : offset + length], len(data))
    return caught.value


# Offsets in the superblock, see Documentation/filesystems/ext4/super.rst.
BROKEN: dict[str, tuple[int, bytes]] = {
    "no blocks": (0x04, bytes(4)),
    "more blocks than the medium has": (0x04, b"\xff\xff\xff\x7f"),
    "blocks beyond four billion": (0x150, b"\1"),
    "no inodes": (0, bytes(4)),
    "first block elsewhere": (0x14, b"\7"),
    "blocks of 128 KiB": (0x18, b"\7"),
    "blocks of no size that exists": (0x18, b"\xff\xff\xff\xff"),
    "groups of no blocks": (0x20, bytes(4)),
    "groups of no inodes": (0x28, bytes(4)),
    "no magic": (0x38, bytes(2)),
    "revision 0": (0x4C, bytes(4)),
    "inodes of no size": (0x58, bytes(2)),
    "odd inodes": (0x58, b"\x81\0"),
    "inodes larger than a block": (0x58, b"\0\x80"),
    "small descriptors with 64 bit": (0xFE, b"\x08\0"),
    "odd descriptors": (0xFE, b"\x41\0"),
}


@pytest.mark.parametrize(("at", "value"), BROKEN.values(), ids=BROKEN.keys())
def test_a_superblock_that_lies_is_refused(stick: bytes, at: int, value: bytes) -> None:
    data = bytearray(stick)
    data[SUPERBLOCK + at : SUPERBLOCK + at + len(value)] = value

    refusal(bytes(data))


@pytest.mark.parametrize("size", [0, 1500, 4096, 100_000])
def test_a_medium_that_ends_early_is_refused(stick: bytes, size: int) -> None:
    refusal(stick[:size])


def node(
    entries: bytes, *, count: int, room: int = 4, depth: int = 0, magic: int = 0xF30A
) -> bytes:
    return struct.pack("<4HI", magic, count, room, depth, 0) + entries


def leaf(first: int, count: int, place: int) -> bytes:
    return struct.pack("<IHHI", first, count, place >> 32, place & 0xFFFFFFFF)


def index(first: int, place: int) -> bytes:
    return struct.pack("<IIHH", first, place & 0xFFFFFFFF, place >> 32, 0)


TREES: dict[str, bytes] = {
    "no magic": node(leaf(0, 1, 100), count=1, magic=0),
    "more entries than fit": node(leaf(0, 1, 100), count=5, room=5),
    "more entries than room": node(leaf(0, 1, 100), count=3, room=2),
    "too deep": node(index(0, 100), count=1, depth=6),
    "branches of nothing": node(b"", count=0, depth=1),
    "a branch outside": node(index(0, 1 << 40), count=1, depth=1),
    "a branch that is no node": node(index(0, 1), count=1, depth=1),
    "in itself": node(index(0, 1), count=1, depth=2),
    "overlapping": node(leaf(0, 10, 100) + leaf(5, 10, 200), count=2),
    "backwards": node(leaf(10, 10, 100) + leaf(0, 10, 200), count=2),
    "outside": node(leaf(0, 10, 1 << 20), count=1),
    "over the end": node(leaf(0, 10, 8190), count=1),
    "block 0": node(leaf(0, 10, 0), count=1),
    "of nothing": node(leaf(0, 0, 100), count=1),
}


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES.keys())
def test_an_extent_tree_that_lies_is_refused(stick: bytes, tree: bytes) -> None:
    data = bytearray(stick)
    at = place_of_inode(stick) + 0x28
    data[at : at + 60] = tree.ljust(60, b"\0")

    refusal(bytes(data))


def test_a_tree_that_contains_itself_ends(stick: bytes) -> None:
    """Each level says how deep it is, so a circle breaks that, and breadth has a limit."""
    data = bytearray(stick)
    at = place_of_inode(stick) + 0x28
    data[at : at + 60] = node(index(0, 5000) * 4, count=4, depth=5).ljust(60, b"\0")
    for depth in range(5):
        block = node(index(0, 5001 + depth) * 84, count=84, room=84, depth=4 - depth)
        data[(5000 + depth) * 1024 : (5001 + depth) * 1024] = block.ljust(1024, b"\0")
    data[5004 * 1024 : 5005 * 1024] = node(b"", count=0, room=84).ljust(1024, b"\0")

    assert "more than 2048 nodes" in str(refusal(bytes(data)))


NAMES_BROKEN: dict[str, tuple[int, bytes]] = {
    "no length": (4, bytes(2)),
    "odd length": (4, b"\x0d\0"),
    "over the end": (4, b"\0\x80"),
    "shorter than the name": (4, b"\x0c\0"),
    "inode that is not there": (0, b"\xff\xff\xff\xff"),
}


@pytest.mark.parametrize(("at", "value"), NAMES_BROKEN.values(), ids=NAMES_BROKEN.keys())
def test_a_directory_that_lies_is_refused(stick: bytes, at: int, value: bytes) -> None:
    data = bytearray(stick)
    entry = stick.index(b"rootfs-pkgs.img") - 8
    data[entry + at : entry + at + len(value)] = value

    refusal(bytes(data))


@pytest.mark.parametrize(
    ("field", "value"),
    [("mode", "0100644"), ("size", "0"), ("size", "1000"), ("size", str(3 << 20)), ("flags", "0")],
)
def test_a_root_directory_that_is_none_is_refused(tmp_path: Path, field: str, value: str) -> None:
    stick = make(tmp_path / "stick")
    change(stick, f"set_inode_field <2> {field} {value}")

    refusal(stick.read_bytes())


def place_of_inode(stick: bytes) -> int:
    """The file's inode is the only one of exactly this size."""
    wanted = struct.pack("<HHI", 0o100644, 0, len(CONTENT))
    places = [at for at in range(0, len(stick), 128) if stick[at : at + 8] == wanted]
    assert len(places) == 1
    return places[0]


@pytest.fixture(scope="module")
def stick(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = make(tmp_path_factory.mktemp("ext4") / "stick", "-b", "1024", "-E", "root_owner=0:0")
    put(path, "rootfs-pkgs.img", CONTENT)
    change(path, "set_inode_field rootfs-pkgs.img mode 0100644")
    return path.read_bytes()


@pytest.fixture(scope="module")
def metadata(stick: bytes) -> list[int]:
    """Every byte that is looked at: superblock, descriptors, inodes, names."""
    places = {SUPERBLOCK: 0x160, 2048: 64, place_of_inode(stick): 128}
    places[stick.index(b"rootfs-pkgs.img") // 1024 * 1024] = 128
    return [at + inside for at, size in places.items() for inside in range(size)]


def look(data: bytes, patched: dict[int, int]) -> None:
    """Only the documented error, nothing from outside, and not for ever."""
    reads = 0

    def read(offset: int, length: int) -> bytes:
        nonlocal reads
        reads += 1
        assert offset >= 0
        assert offset + length <= len(data) or offset == SUPERBLOCK
        assert reads < 10_000
        part = bytearray(data[offset : offset + length])
        for at, byte in patched.items():
            if offset <= at < offset + length:
                part[at - offset] = byte
        return bytes(part)

    try:
        extents = find(read, len(data))
    except FileSystemError:
        return
    assert all(e.offset is None or 0 < e.offset <= len(data) - e.size for e in extents)


def test_every_flipped_bit_ends_in_an_answer(stick: bytes, metadata: list[int]) -> None:
    for at in metadata:
        for bit in range(8):
            look(stick, {at: stick[at] ^ 1 << bit})


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 1 << 32),
    edits=st.integers(1, 12),
    value=st.sampled_from([None, 0, 0xFF, 0x7F]),
)
def test_whatever_the_bytes_nothing_is_read_outside_or_for_ever(
    stick: bytes, metadata: list[int], seed: int, edits: int, value: int | None
) -> None:
    dice = random.Random(seed)  # noqa: S311 - repeatable damage, no secret
    places = dice.choices(metadata, k=edits)
    look(stick, {at: dice.randrange(256) if value is None else value for at in places})
