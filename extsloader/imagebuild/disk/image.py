"""The bootable disk: partition table, file systems and the root file system in one file.

Nothing is mounted and no loop device is made, so it needs no root.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

from extsloader.imagebuild.disk.fat import Fat, make_fat
from extsloader.imagebuild.disk.table import Partition, Sizes, place, plan_table, write_script
from extsloader.imagebuild.disk.uki import FIRMWARE, extract_sources, make_uki
from extsloader.imagebuild.tools import run_tool
from extsloader.imagebuild.tree import read_tar
from extsloader.model.errors import MachineError, SettingsError
from extsloader.model.reasons import Code

_CHUNK = 1 << 20  # bytes
_SMALLEST_FAT32 = 33 << 20  # bytes; readers take fewer than 65525 clusters for FAT16
_EFI_SERIAL, _CONFIG_SERIAL = "e7e00051", "e7e00054"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What goes onto the disk."""

    tar: Path  # the root file system, for kernel, initramfs and command line
    rootfs: Path  # the same as squashfs
    conf: Path | None = None  # directory of files for CONFIG
    pkgs: Path | None = None  # pkgs image
    hypervisor: str = "kvm"
    architecture: str = "amd64"
    more_words: str = ""  # for the kernel's command line
    sizes: Sizes


def make_disk(out: Path, contents: Contents, *, raw: bool = False) -> None:
    """Make a qcow2 (or raw) disk. Raises MachineError, SettingsError."""
    partitions = plan_table(contents.sizes)
    labels = [partition.label for partition in partitions]
    with TemporaryDirectory(dir=out.parent, prefix=".disk-") as name:
        scratch = Path(name)
        fill = {
            "EFI System": _make_efi(contents, scratch),
            "IMGA": contents.rootfs,
            "CONFIG": _make_config(contents, scratch),
            "PKGS": contents.pkgs,
        }
        if lost := [label for label in fill if fill[label] and label not in labels]:
            problems = (
                f"partition {label}: expected room for its content, got none" for label in lost
            )
            raise SettingsError(tuple(problems))
        disk = out if raw else scratch / "disk.raw"
        assemble(disk, [(p, fill.get(p.label)) for p in partitions])
        if not raw:
            convert = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(disk), str(out)]
            run_tool(convert, f"make {out.name}")


def _make_efi(contents: Contents, scratch: Path) -> Path:
    uki, efi = scratch / "uki.efi", scratch / "efi.img"
    sections = extract_sources(read_tar(contents.tar), contents.more_words, scratch)
    make_uki(uki, contents.architecture, sections)
    bits = 32 if contents.sizes.efi >= _SMALLEST_FAT32 else 0
    fat = Fat(label="EVE", serial=_EFI_SERIAL, size=contents.sizes.efi, bits=bits)
    name = f"EFI/BOOT/{FIRMWARE[contents.architecture].name}"
    make_fat(efi, fat, {name: uki})
    return efi


def _make_config(contents: Contents, scratch: Path) -> Path:
    config, kind = scratch / "config.img", scratch / "eve-hv-type"
    kind.write_text(contents.hypervisor)
    files = {"eve-hv-type": kind}
    if contents.conf:
        found = (path for path in contents.conf.rglob("*") if path.is_file())
        files |= {path.relative_to(contents.conf).as_posix(): path for path in sorted(found)}
    fat = Fat(label="EVE", serial=_CONFIG_SERIAL, size=contents.sizes.config)
    make_fat(config, fat, files)
    return config


def assemble(disk: Path, parts: Iterable[tuple[Partition, Path | None]]) -> None:
    """Make a raw disk of partitions and what fills them. Raises MachineError, SettingsError."""
    parts = list(parts)
    partitions = [partition for partition, _ in parts]
    starts, size = place(partitions)
    _check_fit(parts)
    make_table(disk, size, write_script(partitions))
    for start, (_, content) in zip(starts, parts, strict=True):
        if content:
            write_sparse(disk, start, content)


def make_table(disk: Path, size: int, script: str) -> None:
    """Make an empty disk with a partition table. Raises MachineError."""
    with disk.open("wb") as file:
        file.truncate(size)
    with TemporaryFile() as lines:
        lines.write(script.encode())
        lines.seek(0)
        command = ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", str(disk)]
        run_tool(command, "write the partition table", stdin=lines)


def _check_fit(parts: Iterable[tuple[Partition, Path | None]]) -> None:
    for partition, content in parts:
        if content and (size := content.stat().st_size) > partition.size:
            raise MachineError(
                Code.SIZE,
                f"fill partition {partition.label}",
                f"expected at most {partition.size} bytes, got {size}",
                "make the image smaller, or the partition larger",
            )


def write_sparse(disk: Path, start: int, content: Path) -> None:
    """Write a file into a disk; zeros stay holes."""
    with disk.open("r+b") as target, content.open("rb") as source:
        target.seek(start)
        while chunk := source.read(_CHUNK):
            if chunk.count(0) == len(chunk):
                target.seek(len(chunk), 1)
            else:
                target.write(chunk)
