"""Partitions of disks, read, replaced and made without mounting anything."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from extsloader.image.superblock import Partition, read_partition
from extsloader.imagebuild.disk.fat import Fat, make_fat
from extsloader.imagebuild.disk.image import assemble, make_table, write_sparse
from extsloader.imagebuild.disk.table import MIB, SECTOR, Sizes, plan_table
from extsloader.imagebuild.tools import run_tool
from extsloader.model.errors import MachineError
from extsloader.model.reasons import Code

_ENTRIES = 128  # of the usual table, which lies in the first MiB


def find_partition(disk: Path, label: str) -> Partition:
    """The partition of that name. Raises MachineError where there is none."""
    with TemporaryDirectory(prefix="mkext-") as folder:
        head = Path(folder, "head")
        _copy(disk, head, 0, MIB)
        table = head.read_bytes()
    partitions = (
        read_partition(lambda offset, length: table[offset : offset + length], number + 1)
        for number in range(_ENTRIES)
    )
    for partition in partitions:
        if partition and partition.label == label:
            return partition
    raise MachineError(Code.LAYOUT, f"use {disk}", f"it has no partition {label}")


def copy_partition(disk: Path, label: str, out: Path) -> None:
    """The bytes of a partition as a file. Raises MachineError."""
    partition = find_partition(disk, label)
    _copy(disk, out, partition.first, partition.first + partition.size)


def replace_partition(disk: Path, label: str, content: Path) -> None:
    """Write a file, at most as large as the partition, over its start. Raises MachineError."""
    partition, size = find_partition(disk, label), content.stat().st_size
    if size > partition.size:
        reason = f"at most {partition.size} bytes expected, got {size}"
        raise MachineError(Code.SIZE, f"fill partition {label} of {disk}", reason)
    command = f"write -q -s {content.name} {partition.first} {size}"  # it knows no quotes
    argv = ["qemu-io", "-f", "qcow2", "-c", command, str(disk.absolute())]
    run_tool(argv, f"write to {disk}", cwd=content.parent)


def _copy(disk: Path, out: Path, first: int, end: int) -> None:
    """`qemu-img dd` counts blocks from the start; partitions begin and end at whole MiB."""
    blocks = [f"bs={MIB}", f"skip={first // MIB}", f"count={end // MIB}"]
    argv = ["qemu-img", "dd", "-f", "qcow2", "-O", "raw", *blocks, f"if={disk}", f"of={out}"]
    run_tool(argv, f"read {disk}")


def make_pkgs_disk(out: Path, image: Path) -> None:
    """A raw disk with one partition, PKGS, that holds an image. Raises MachineError."""
    size = -(-image.stat().st_size // MIB) * MIB
    (partition,) = plan_table(Sizes(efi=0, imga=0, config=0, pkgs=size))
    assemble(out, [(partition, image)])


def make_persist_disk(out: Path, size: int) -> None:
    """A raw, sparse disk with an empty ext4 in a partition P3. Raises MachineError."""
    (partition,) = plan_table(Sizes(efi=0, imga=0, config=0, persist=size))
    assemble(out, [(partition, None)])
    argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-E", f"offset={MIB}", str(out), f"{size >> 10}k"]
    run_tool(argv, f"make a file system on {out}")


def make_stick(out: Path, label: str, files: Mapping[str, Path]) -> None:
    """A raw, sparse disk like a USB stick from a shop: a DOS table and one FAT with given files.

    Raises MachineError, SettingsError.
    """
    used = sum(path.stat().st_size for path in files.values())
    size = (used // MIB + used // (64 * MIB) + 4) * MIB  # room for directories and the FATs
    with TemporaryDirectory(dir=out.parent, prefix=".stick-") as folder:
        fat = Path(folder, "fat")
        make_fat(fat, Fat(label=label, serial="57100001", size=size), files)
        script = f"label: dos\nstart={MIB // SECTOR}, size={size // SECTOR}, type=c\n"
        make_table(out, MIB + size, f"label-id: 0x57100000\n{script}")
        write_sparse(out, MIB, fat)
