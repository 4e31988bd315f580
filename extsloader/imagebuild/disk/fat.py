"""FAT file systems with given files, without mounting, the same bytes for the same files."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from extsloader.imagebuild.squashfs import EPOCH
from extsloader.imagebuild.tools import run_tool
from extsloader.imagebuild.tree import parents
from extsloader.model.errors import MachineError, SettingsError

_CLOCK = ["env", f"SOURCE_DATE_EPOCH={EPOCH}", "TZ=UTC"]  # mtools stamps what it makes by it
_IMPOSSIBLE = re.compile(r'[\x00-\x1f"*:<>?\\|\x7f]|[. ]$')
"""FAT specification, section 7: characters of no long name; ends that Windows takes away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fat:
    """What a file system is called and how large it is."""

    label: str
    serial: str  # eight hex digits
    size: int  # bytes
    bits: int = 0  # 12, 16, 32; 0: what suits the size


def make_fat(out: Path, fat: Fat, files: Mapping[str, Path]) -> None:
    """Make a file system that holds `files` by their path in it.

    Raises MachineError, SettingsError.
    """
    check_names(files, fat.label)
    with out.open("wb") as file:
        file.truncate(fat.size)
    kind = ["-F", str(fat.bits)] if fat.bits else []
    # --invariant must come first, else it replaces the serial number.
    options = ["--invariant", "-i", fat.serial, "-n", fat.label, *kind]
    run_tool(["mkfs.vfat", *options, str(out)], f"make the file system {fat.label}")
    try:
        _fill(out, fat, files)
    except MachineError:
        out.unlink()
        raise


def _fill(out: Path, fat: Fat, files: Mapping[str, Path]) -> None:
    """One file after the other: `mcopy -s` takes the order in which the host lists a directory."""
    stage = f"fill the file system {fat.label}"
    hint = f"it has {fat.size >> 20} MiB: make the partition larger"
    directories = sorted({parent for name in files for parent in parents(name)})
    commands = [
        *(["mmd", "-i", str(out), f"::{name}"] for name in directories),
        *(["mcopy", "-i", str(out), str(files[name]), f"::{name}"] for name in sorted(files)),
    ]
    for command in commands:
        run_tool([*_CLOCK, *command], stage, hint=hint)


def check_names(names: Iterable[str], where: str) -> None:
    """Raise SettingsError for what FAT cannot tell apart, and for what mtools would rename."""
    names = sorted(names)
    count = Counter(name.lower() for name in names)
    clash = [name for name in names if count[name.lower()] > 1]
    wrong = [name for name in names if any(map(_IMPOSSIBLE.search, name.split("/")))]
    problems = (
        *(f"{name!r}: it differs from another only in case" for name in clash),
        *(f"{name!r}: FAT has no such names" for name in wrong),
    )
    if problems:
        raise SettingsError(tuple(f"cannot put into {where} the file {p}" for p in problems))
