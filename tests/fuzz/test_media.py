"""Made-up media: superblocks, tables, FAT and ext4 are read within their bounds, or refused."""

import struct
import subprocess
from pathlib import Path
from types import ModuleType
from zlib import crc32

import pytest
from hypothesis import strategies as st

from extsloader.image import ext4, fat
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
    tool("mkfs.ext4", "-q", "-b", "1024", "-O", "^has_journal", path)
    (path.parent / "content").write_bytes(bytes(20_000))
    tool("debugfs", "-w", "-R", f"write {path.parent}/content rootfs-pkgs.img", path)
    return path.read_bytes()


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

    heads = [images.squashfs(100)[:4608], stick[:4608], disk, ext[:4608]]
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


def windows(image: bytes, *places: tuple[int, int]) -> st.SearchStrategy[bytes]:
    """The image with one of these places (offset, length) spoiled, and nothing moved behind it."""

    def put(found: tuple[int, bytes]) -> bytes:
        at, part = found
        return image[:at] + part + image[at + len(part) :]

    one = st.sampled_from(places)
    parts = one.flatmap(
        lambda place: st.tuples(st.just(place[0]), spoiled(image[place[0] : sum(place)]))
    )
    return parts.map(put)


def look(data: bytes, kind: ModuleType) -> None:
    medium = Media(data, most=64 << 20)
    try:
        found = kind.list_root(medium.read, len(data), ["rootfs-pkgs.img", "pkgs.img"])
        if not found.file:
            return
        extents = kind.find_extents(medium.read, len(data), found.file)
    except FileSystemError:
        return
    assert sum(extent.size for extent in extents) == found.file.size
    for extent in extents:
        assert extent.offset is None or 0 < extent.offset <= len(data) - extent.size


def test_fat(stick: bytes) -> None:
    look(stick, fat)
    root = stick.index(b"STICK      \x08")
    fuzz(windows(stick, (0, 64), (512, root - 512), (root, 256)), lambda data: look(data, fat))


def test_ext4(ext: bytes) -> None:
    look(ext, ext4)
    inodes = int.from_bytes(ext[2056:2060], "little") * 1024
    root = ext.index(b"rootfs-pkgs.img") - 64
    places = (1024, 264), (2048, 64), (inodes, 4096), (root, 128)
    fuzz(windows(ext, *places), lambda data: look(data, ext4))
