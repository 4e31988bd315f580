"""Partitions of disks, read, replaced and made without mounting anything."""

from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

from extsloader.image.superblock import Partition, read_partition
from extsloader.imagebuild.tools import run_tool
from extsloader.model.errors import MachineError
from extsloader.model.reasons import Code

_MIB = 1 << 20  # our disks' partitions, and EVE's, begin and end at whole ones
_SECTOR = 512
_ENTRIES = 128  # of the usual table, which lies in the first MiB
_LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
_EVE_PERSIST = "5F24425A-2DFA-11E8-A270-7B663FACCC2C"


def find_partition(disk: Path, label: str) -> Partition:
    """The partition of that name. Raises MachineError where there is none."""
    with TemporaryDirectory(prefix="mkext-") as folder:
        head = Path(folder, "head")
        _copy(disk, head, 0, _MIB)
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
    """`qemu-img dd` counts blocks from the start of the disk."""
    blocks = [f"bs={_MIB}", f"skip={first // _MIB}", f"count={end // _MIB}"]
    argv = ["qemu-img", "dd", "-f", "qcow2", "-O", "raw", *blocks, f"if={disk}", f"of={out}"]
    run_tool(argv, f"read {disk}")


def make_partitioned(out: Path, label: str, content: Path) -> None:
    """A raw disk with one partition that holds a file. Raises MachineError."""
    mebibytes = -(-content.stat().st_size // _MIB)
    _partition(out, label, _LINUX, mebibytes * _MIB)
    argv = ["dd", f"if={content}", f"of={out}", f"bs={_MIB}", "seek=1", "conv=notrunc,sparse"]
    run_tool(argv, f"write {out}")


def make_persist(out: Path, size: int) -> None:
    """A raw disk with an empty ext4 in a partition P3, as EVE names it; sparse."""
    _partition(out, "P3", _EVE_PERSIST, size)
    argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-E", f"offset={_MIB}", str(out), f"{size >> 10}k"]
    run_tool(argv, f"write {out}")


def _partition(out: Path, label: str, kind: str, size: int) -> None:
    with out.open("wb") as file:
        file.truncate(size + 2 * _MIB)
    first, sectors = _MIB // _SECTOR, size // _SECTOR
    with TemporaryFile() as script:
        script.write(
            f'label: gpt\nstart={first}, size={sectors}, type={kind}, name="{label}"\n'.encode()
        )
        script.seek(0)
        run_tool(
            ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", str(out)],
            f"partition {out}",
            stdin=script,
        )
