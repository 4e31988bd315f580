"""Made-up media: superblocks, partition tables and FAT are read within their bounds, or not."""

import struct
import subprocess
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import strategies as st

from extsloader.image.fat import find_extents, list_root
from extsloader.image.files import FileSystemError
from extsloader.image.superblock import read_partition, read_squashfs, read_superblock
from extsloader.model.source import FsType, Superblock
from tests.fakes import images
from tests.fuzz.budget import Media, fuzz, spoiled

TABLE = 32 << 10  # bytes of a partition table that are read at most


def tool(*argv: str | Path, given: bytes = b"") -> None:
    subprocess.run(argv, input=given, check=True, capture_output=True)


def blank(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


@pytest.fixture(scope="module")
def stick(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = blank(tmp_path_factory.mktemp("fuzz") / "stick", 256 << 10)
    tool("mkfs.vfat", "-F", "12", "-s", "1", "-n", "STICK", path)
    tool("mcopy", "-i", path, "-", "::rootfs-pkgs.img", given=bytes(20_000))
    return path.read_bytes()


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = blank(tmp_path_factory.mktemp("fuzz") / "disk", 2 << 20)
    tool("sfdisk", "-q", path, given=b"label: gpt\nstart=40, size=8, name=PKGS\n")
    return path.read_bytes()[: 20 << 10]


@pytest.fixture(scope="module")
def ext(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = blank(tmp_path_factory.mktemp("fuzz") / "ext", 1 << 20)
    tool("mkfs.ext4", "-q", path)
    return path.read_bytes()[:4608]


def test_superblocks(stick: bytes, disk: bytes, ext: bytes) -> None:
    def attempt(data: bytes) -> None:
        found = read_superblock(Media(data, most=4608 + TABLE).read)
        assert isinstance(found, Superblock)
        assert found.used >= 0
        squashfs = read_squashfs(Media(data, most=96).read)
        if squashfs is None:
            assert found.fs_type is not FsType.SQUASHFS
        else:
            assert 96 < squashfs.used < 1 << 63

    heads = [images.squashfs(100)[:4608], stick[:4608], disk, ext]
    fuzz(st.sampled_from(heads).flatmap(lambda head: spoiled(head, 1200)), attempt)


def checked(data: bytes) -> bytes:
    """The same table with checksums that are right: otherwise nothing behind them is reached."""
    header = bytearray(data[512:1024])
    start, count, size = struct.unpack_from("<72x Q II", header)
    entries = data[start * 512 : start * 512 + min(count * size, 1 << 20)]
    struct.pack_into("<I", header, 88, crc32(entries))
    length = min(struct.unpack_from("<12x I", header)[0], 512)
    struct.pack_into("<I", header, 16, 0)
    struct.pack_into("<I", header, 16, crc32(header[:length]))
    return data[:512] + header + data[1024:]


def test_partition_tables(disk: bytes) -> None:
    def attempt(case: tuple[bytes, int]) -> None:
        data, number = case
        found = read_partition(Media(data, most=4608 + TABLE).read, number)
        if found is not None:
            assert found.size > 0
            assert found.first >= 0
            assert len(found.label) <= 36

    head = disk[:512]
    tables = spoiled(disk[512:1152], 640).map(lambda middle: head + middle + disk[1152:])
    fuzz(st.tuples(tables | tables.map(checked), st.integers(-1, 130)), attempt, 600)
    assert read_partition(Media(checked(disk), most=4608 + TABLE).read, 1) is not None


def test_fat(stick: bytes) -> None:
    def attempt(data: bytes) -> None:
        medium = Media(data, most=64 << 20)
        try:
            found = list_root(medium.read, len(data), ["rootfs-pkgs.img", "pkgs.img"])
            extents = find_extents(medium.read, len(data), found.file) if found.file else ()
        except FileSystemError:
            return
        assert all(e.offset and e.offset + e.size <= len(data) for e in extents)
        if found.file:
            assert sum(e.size for e in extents) == found.file.size

    root = stick.index(b"STICK      \x08")
    boot = spoiled(stick[:64]).map(lambda head: head + stick[len(head) :])
    table = spoiled(stick[:root], root)
    directory = spoiled(stick[root : root + 256]).map(
        lambda entries: stick[:root] + entries + stick[root + len(entries) :]
    )
    fuzz(boot | table.map(lambda head: head + stick[len(head) :]) | directory, attempt)
