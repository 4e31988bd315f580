"""The readers against images of the real tools, and against what a hostile stick holds."""

import os
import struct
import subprocess
from contextlib import suppress
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from extsloader.image.superblock import Read, read_partition, read_squashfs, read_superblock, reader
from extsloader.model.source import FsType, Superblock

UNKNOWN = Superblock(fs_type=FsType.UNKNOWN)
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
ENTRIES = 128 * 128
SQUASHFS = struct.pack(
    "<4s4I6H8Q",
    *(b"hsqs", 1, 0, 1 << 17, 0, 1, 17, 0, 1, 4, 0),
    *(0, 4000, 3000, (1 << 64) - 1, 96, 1000, 2000, (1 << 64) - 1),
)


def over(data: bytes | bytearray) -> Read:
    return lambda offset, length: bytes(data[offset : offset + length])


def of(path: Path) -> Read:
    return over(path.read_bytes()[: 1 << 20])


def place(data: bytes, offset: int, what: bytes) -> bytes:
    return data[:offset].ljust(offset, b"\0") + what + data[offset + len(what) :]


def blank(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def make(*argv: str | Path, script: str = "") -> None:
    subprocess.run(argv, check=True, capture_output=True, input=script, text=True)


def gpt(
    *, label: str = "PKGS", sector: int = 512, count: int = 128, entry_size: int = 128
) -> bytes:
    name = label.encode("utf-16-le").ljust(72, b"\0")
    guid = bytes.fromhex("af3dc60f838472478e793d69d8477de4")
    entries = struct.pack("<16s16sQQQ72s", guid, bytes(16), 2048, 4095, 0, name)
    entries = entries.ljust(min(count * entry_size, 1 << 16), b"\0")

    def header(checksum: int) -> bytes:
        return struct.pack(
            "<8s4I4Q16sQ3I",
            *(b"EFI PART", 1 << 16, 92, checksum, 0, 1, 9999, 34, 9000, bytes(16), 2),
            *(count, entry_size, crc32(entries)),
        )

    return place(place(b"", sector, header(crc32(header(0)))), 2 * sector, entries)


@pytest.mark.parametrize(
    ("compressor", "options", "files"),
    [
        *((name, "", 1) for name in ("gzip", "xz", "lz4", "zstd")),
        ("gzip", "", 0),
        ("gzip", "", 600),
        ("gzip", "-no-exports", 1),
        ("gzip", "-no-fragments", 600),
        ("gzip", "-no-xattrs", 600),
        ("gzip", "-no-exports -no-fragments -no-xattrs", 0),
        ("gzip", "-always-use-fragments", 600),
        ("gzip", "-noI -noD -noF -noX", 600),
    ],
)
def test_a_squashfs_of_the_real_tool_says_its_size_and_compressor(
    tmp_path: Path, compressor: str, options: str, files: int
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(files):
        (tree / f"{number}").write_text("hello")
        with suppress(OSError):  # not every temporary directory has them
            os.setxattr(tree / f"{number}", "user.extst", bytes([number % 256]))
    image, quiet = tmp_path / "image", ("-b", "64K", "-quiet", "-no-progress")
    make("mksquashfs", tree, image, "-comp", compressor, *quiet, *options.split())
    found = read_squashfs(of(image))
    assert found is not None
    assert (found.compressor, found.block_size) == (compressor, 65536)
    assert found.used <= image.stat().st_size < found.used + 4096  # the tool pads to 4 KiB
    assert read_superblock(of(image)) == Superblock(fs_type=FsType.SQUASHFS, used=found.used)


@pytest.mark.parametrize("version", ["ext2", "ext3", "ext4"])
def test_all_ext_versions_are_ext_and_have_a_label(tmp_path: Path, version: str) -> None:
    image = blank(tmp_path / "image", 4 << 20)
    make("mkfs.ext4", "-t", version, "-q", "-L", "persist", image)
    assert read_superblock(of(image)) == Superblock(
        fs_type=FsType.EXT, label="persist", used=4 << 20
    )


@pytest.mark.parametrize(
    ("name", "fs_type"), [(b"EXFAT   ", FsType.EXFAT), (b"NTFS    ", FsType.NTFS)]
)
def test_what_else_sticks_are_formatted_with_has_a_name(name: bytes, fs_type: FsType) -> None:
    sector = place(place(b"\xeb\x76\x90", 3, name), 510, b"\x55\xaa")
    assert read_superblock(over(sector)) == Superblock(fs_type=fs_type)
    assert read_superblock(over(sector[:510])) == UNKNOWN
    assert read_superblock(over(SQUASHFS[:3] + name)) == UNKNOWN


@pytest.mark.parametrize(("bits", "size"), [("12", 2 << 20), ("16", 16 << 20), ("32", 64 << 20)])
@pytest.mark.parametrize("label", ["EVE PKGS", ""])
def test_all_fat_widths_are_vfat_and_have_a_label(
    tmp_path: Path, bits: str, size: int, label: str
) -> None:
    image = blank(tmp_path / "image", size)
    make("mkfs.vfat", "-F", bits, *(["-n", label] if label else []), image)
    assert read_superblock(of(image)) == Superblock(fs_type=FsType.VFAT, label=label, used=size)


def test_a_partition_table_of_the_real_tool_names_its_partitions(tmp_path: Path) -> None:
    image = blank(tmp_path / "image", 32 << 20)
    script = f"label: gpt\nsize=1MiB, name=boot\nsize=2MiB, name=pkgs-ä, type={LINUX}\n"
    make("sfdisk", "-q", "--no-reread", image, script=script)
    assert read_superblock(of(image)) == Superblock(fs_type=FsType.GPT)
    second = read_partition(of(image), 2)
    assert second is not None
    assert (second.label, second.type, second.size) == ("pkgs-ä", LINUX, 2 << 20)
    for number in (-1, 0, 3, 128, 129):
        assert read_partition(of(image), number) is None


def test_a_disk_with_large_sectors_counts_in_them() -> None:
    partition = read_partition(over(gpt(sector=4096)), 1)
    assert partition is not None
    assert (partition.label, partition.type) == ("PKGS", LINUX)
    assert (partition.first, partition.size) == (2048 * 4096, 2048 * 4096)


def test_a_descriptor_is_read_without_moving_it(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(SQUASHFS)
    with path.open("rb") as file:
        assert read_superblock(reader(file.fileno())).fs_type is FsType.SQUASHFS
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 0


@pytest.mark.parametrize("data", [b"", b"h", b"hsqs", SQUASHFS[:95], bytes(8192), b"\xff" * 8192])
def test_short_or_empty_media_are_unknown(data: bytes) -> None:
    assert read_superblock(over(data)) == UNKNOWN
    assert read_squashfs(over(data)) is None


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        pytest.param(0, b"sqsh", id="big-endian magic"),
        pytest.param(12, struct.pack("<I", 1 << 16), id="block size against its logarithm"),
        pytest.param(12, struct.pack("<I5H", 2048, *(0, 0, 1, 11, 0)), id="block size 2 KiB"),
        pytest.param(20, struct.pack("<H", 7), id="compressor 7"),
        pytest.param(20, struct.pack("<H", 0), id="compressor 0"),
        pytest.param(22, struct.pack("<H", 65535), id="logarithm 65535"),
        pytest.param(28, struct.pack("<H", 3), id="version 3.0"),
        pytest.param(30, struct.pack("<H", 1), id="version 4.1"),
        pytest.param(40, struct.pack("<Q", 96), id="nothing behind the superblock"),
        pytest.param(40, struct.pack("<Q", 1 << 63), id="negative size"),
    ],
)
def test_a_squashfs_with_an_impossible_field_is_unknown(offset: int, value: bytes) -> None:
    data = place(SQUASHFS, offset, value)
    assert read_squashfs(over(data)) is None
    assert read_superblock(over(data)) == UNKNOWN


def test_a_medium_that_claims_two_types_is_unknown(tmp_path: Path) -> None:
    image = blank(tmp_path / "vfat", 16 << 20)
    make("mkfs.vfat", "-F", "16", image)
    vfat = image.read_bytes()[:65536]
    ext = blank(tmp_path / "ext", 4 << 20)
    make("mkfs.ext4", "-q", ext)
    superblock = ext.read_bytes()[1024:2048]

    named = place(place(SQUASHFS, 82, b"FAT32   "), 510, b"\x55\xaa")
    for hybrid in (
        place(vfat, 0, b"hsqs"),  # the kernel's vfat does not look at the first bytes
        named,
        place(SQUASHFS, 1024, superblock),
        place(gpt(), 0, SQUASHFS),
        place(place(SQUASHFS, 1024, superblock), 4096, gpt(sector=4096)[4096:]),
        place(vfat, 1024, superblock),
    ):
        assert read_superblock(over(hybrid)) == UNKNOWN
    # and each half by itself is known, so that it is the pair that was refused
    for half in (vfat, SQUASHFS, place(b"", 1024, superblock), gpt(), gpt(sector=4096)):
        assert read_superblock(over(half)) != UNKNOWN


@pytest.mark.parametrize("sector", [512, 4096])
@pytest.mark.parametrize("offset", [8, 16, 24, 32, 72, 80, 84, 88])
def test_one_flipped_bit_in_a_partition_table_header_is_noticed(sector: int, offset: int) -> None:
    data = bytearray(gpt(sector=sector))
    assert read_superblock(over(data)).fs_type is FsType.GPT
    data[sector + offset] ^= 1
    assert read_superblock(over(data)) == UNKNOWN
    assert read_partition(over(data), 1) is None


def test_one_flipped_bit_in_a_partition_entry_is_noticed() -> None:
    data = bytearray(gpt())
    data[1024 + 56] ^= 1
    assert read_partition(over(data), 1) is None


@pytest.mark.parametrize(
    ("count", "entry_size"), [(0, 128), (128, 64), (1 << 31, 128), (128, 1 << 31), (257, 128)]
)
def test_a_partition_table_of_absurd_size_is_not_read(count: int, entry_size: int) -> None:
    assert read_superblock(over(gpt(count=count, entry_size=entry_size))) == UNKNOWN


def test_the_largest_partition_table_reads_37_kib() -> None:
    reads = []

    def read(offset: int, length: int) -> bytes:
        reads.append(length)
        return gpt(count=256)[offset : offset + length]

    assert read_superblock(read).fs_type is FsType.GPT
    assert sum(reads) == 4608 + 32768


def test_names_from_outside_are_decoded_without_surprise() -> None:
    broken = gpt(label="A")[:1080] + b"\x00\xd8B\x00" + gpt(label="A")[1084:]
    data = bytearray(broken)  # a lone surrogate
    data[600:604] = struct.pack("<I", crc32(data[1024 : 1024 + ENTRIES]))
    data[528:532] = bytes(4)
    data[528:532] = struct.pack("<I", crc32(data[512:604]))
    partition = read_partition(over(bytes(data)), 1)
    assert partition is not None
    assert partition.label == "\N{REPLACEMENT CHARACTER}B"


@given(st.binary(max_size=6000), st.sampled_from([0, 510, 512, 1024, 1080, 4096]), st.data())
@example(b"", 0, None)
def test_any_bytes_give_a_superblock(data: bytes, offset: int, draw: st.DataObject | None) -> None:
    magics = [b"hsqs", b"\x55\xaa", b"\x53\xef", b"EFI PART", SQUASHFS, gpt()[512:9000]]
    magic = draw.draw(st.sampled_from(magics)) if draw else b""
    hostile = over(place(data, offset, magic))
    assert isinstance(read_superblock(hostile), Superblock)
    for number in (1, 128):
        read_partition(hostile, number)


def test_a_read_error_is_the_callers_business() -> None:
    def fail(_offset: int, _length: int) -> bytes:
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        read_superblock(fail)
