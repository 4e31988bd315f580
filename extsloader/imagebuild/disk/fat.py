"""FAT file systems with given files, without mounting, the same bytes for the same files."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from extsloader.imagebuild.squashfs import EPOCH
from extsloader.imagebuild.tools import run_tool
from extsloader.model.errors import MachineError

_ENVIRONMENT = ["env", f"SOURCE_DATE_EPOCH={EPOCH}", "TZ=UTC"]  # mtools stamps directories by it


@dataclass(frozen=True, slots=True, kw_only=True)
class Fat:
    """What a file system is called and how large it is."""

    label: str
    serial: str  # eight hex digits
    size: int  # bytes
    bits: int = 0  # 12, 16, 32; 0: what suits the size


def make_fat(out: Path, fat: Fat, files: Mapping[str, Path], scratch: Path) -> None:
    """Make a file system that holds `files` by their path in it. Raises MachineError."""
    with out.open("wb") as file:
        file.truncate(fat.size)
    kind = ["-F", str(fat.bits)] if fat.bits else []
    # --invariant must come first, else it replaces the serial number.
    options = ["--invariant", "-i", fat.serial, "-n", fat.label, *kind]
    run_tool(["mkfs.vfat", *options, str(out)], f"make the file system {fat.label}")
    if names := _stage(files, scratch):
        copy = [*_ENVIRONMENT, "mcopy", "-s", "-m", "-i", str(out), *names, "::"]
        hint = f"it has {fat.size >> 20} MiB: make the partition larger"
        try:
            run_tool(copy, f"fill the file system {fat.label}", hint=hint)
        except MachineError:
            out.unlink()
            raise


def _stage(files: Mapping[str, Path], scratch: Path) -> list[str]:
    """Copies with one fixed time; returns the top names."""
    for name, source in files.items():
        target = scratch / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    for path in scratch.rglob("*"):
        os.utime(path, (EPOCH, EPOCH))
    return sorted(str(path) for path in scratch.iterdir())
