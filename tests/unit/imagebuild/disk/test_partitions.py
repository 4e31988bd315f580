from pathlib import Path

import pytest

from extsloader.image.fat import find_extents, list_root
from extsloader.image.superblock import read_partition, read_superblock, reader
from extsloader.imagebuild.disk.partitions import (
    copy_partition,
    make_persist_disk,
    make_pkgs_disk,
    make_stick,
    replace_partition,
)
from extsloader.imagebuild.tools import run_tool
from extsloader.model.errors import MachineError
from extsloader.model.source import FsType

MIB = 1 << 20


def test_a_partition_holds_the_file_and_carries_the_name(tmp_path: Path) -> None:
    content, disk = tmp_path / "content", tmp_path / "disk"
    content.write_bytes(b"pkgs" * (MIB // 4) + b"end")
    make_pkgs_disk(disk, content)
    with disk.open("rb") as file:
        partition = read_partition(reader(file.fileno()), 1)
        assert partition
        assert partition.label == "PKGS"
        assert partition.size == 2 * MIB
        file.seek(partition.first)
        assert file.read(MIB + 3) == content.read_bytes()


def test_a_persistent_disk_is_empty_and_sparse(tmp_path: Path) -> None:
    disk = tmp_path / "persist"
    make_persist_disk(disk, 256 * MIB)
    assert disk.stat().st_blocks * 512 < 32 * MIB
    with disk.open("rb") as file:
        read = reader(file.fileno())
        partition = read_partition(read, 1)
        assert partition
        assert partition.label == "P3"
        superblock = read_superblock(lambda at, size: read(partition.first + at, size))
    assert superblock.fs_type is FsType.EXT


def test_a_stick_is_a_fat_on_a_dos_partition(tmp_path: Path) -> None:
    image, stick = tmp_path / "image", tmp_path / "stick"
    image.write_bytes(b"pkgs" * MIB + b"end")
    make_stick(stick, "EVEPKGS", {"rootfs-pkgs.img": image})

    entry = stick.read_bytes()[446:462]
    assert (entry[4], int.from_bytes(entry[8:12], "little")) == (0x0C, MIB // 512)
    with stick.open("rb") as file:
        read, size = reader(file.fileno()), stick.stat().st_size - MIB

        def within(at: int, length: int) -> bytes:
            return read(MIB + at, length)

        listing = list_root(within, size, ["rootfs-pkgs.img"])
        assert listing.file
        extents = find_extents(within, size, listing.file)
        content = b"".join(within(extent.offset or 0, extent.size) for extent in extents)
    assert (listing.label, content) == ("EVEPKGS", image.read_bytes())


def test_a_stick_of_holes_takes_no_room(tmp_path: Path) -> None:
    with (tmp_path / "image").open("wb") as file:
        file.truncate(256 * MIB)
    make_stick(tmp_path / "stick", "EVEPKGS", {"rootfs-pkgs.img": tmp_path / "image"})

    assert (tmp_path / "stick").stat().st_blocks * 512 < 4 * MIB


def test_a_partition_of_a_qcow2_is_read_and_replaced(tmp_path: Path) -> None:
    disk = make_qcow2(tmp_path, b"before" * 1000)
    other, out = tmp_path / "other", tmp_path / "out"
    other.write_bytes(b"after")
    replace_partition(disk, "PKGS", other)
    copy_partition(disk, "PKGS", out)
    assert out.stat().st_size == MIB
    assert out.read_bytes().startswith(b"aftere")  # the end of the second "before"


def test_what_does_not_fit_or_is_not_there_is_told(tmp_path: Path) -> None:
    disk, large = make_qcow2(tmp_path, b"x"), tmp_path / "large"
    large.write_bytes(bytes(MIB + 1))
    with pytest.raises(MachineError, match=f"at most {MIB} bytes expected, got {MIB + 1}"):
        replace_partition(disk, "PKGS", large)
    with pytest.raises(MachineError, match="it has no partition IMGA"):
        copy_partition(disk, "IMGA", tmp_path / "out")


def make_qcow2(folder: Path, content: bytes) -> Path:
    file, raw, disk = folder / "content", folder / "raw", folder / "disk.qcow2"
    file.write_bytes(content)
    make_pkgs_disk(raw, file)
    run_tool(["qemu-img", "convert", "-O", "qcow2", str(raw), str(disk)], "convert")
    return disk
