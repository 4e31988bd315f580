"""Filters: which sources are looked into at all, and which of those are worth verifying.

Filters about devices do not touch files: an operator names those by path. An image in our own
store has passed once and only has to be a file system of the wanted type.
"""

import re
from fnmatch import fnmatchcase

from extsloader.model.reasons import Code, Problem
from extsloader.model.source import CARRIERS, Filters, FsType, Source, SourceKind, Superblock
from extsloader.model.text import printable

SHOWN, SHOWN_PATH = 80, 256
"""So many characters of a name and of a path from outside are shown."""

_NO_MEDIUM = re.compile(r"/dev/(dm-|drbd|fd|nbd|ram|rbd|sr|zram)\d+(p\d+)?", re.ASCII)
"""Mappings of other devices, memory, discs and networks (Documentation/admin-guide/devices.txt)."""

_MEANT = {FsType.GPT: "a partition table", FsType.UNKNOWN: "nothing known"}


def refuse_unprobed(source: Source, filters: Filters, store: str) -> Problem | None:
    """Why no byte of this source shall be read; None when it may be probed.

    `store` is the directory of our own images: loop devices on them are our mounts.
    """
    if source.size == 0:
        return _refuse(source, "a medium", "an empty one", "plug in a medium")
    if source.kind is SourceKind.STORED:
        return None
    if not filters.min_size <= source.size <= filters.max_size:
        window = f"between {filters.min_size} and {filters.max_size} bytes"
        return _filtered(source, window, f"{source.size}", "min_size and max_size")
    return _refuse_device(source, filters, store) if source.kind is SourceKind.DEVICE else None


def refuse_probed(source: Source, superblock: Superblock, filters: Filters) -> Problem | None:
    """Why this source shall not be verified, now that its superblock is known."""
    if superblock.fs_type not in filters.fs_types:
        got = _MEANT.get(superblock.fs_type, superblock.fs_type.value)
        hint = "write the image to the device itself, or put it into a watched directory"
        return _refuse(source, " or ".join(filters.fs_types), got, hint, Code.FS_TYPE)
    if superblock.fs_type in CARRIERS and not superblock.file:
        return _refuse_without_file(source, superblock, filters)
    if source.kind is not SourceKind.DEVICE:
        return None
    if own := _refuse_own(source, superblock.partition_label, filters):
        return own
    types = tuple(guid.upper() for guid in filters.partition_types)
    # squashfs has no label: a device's label is then what its partition is called.
    label = superblock.label or superblock.partition_label
    return (
        _refuse_other(source, "label", filters.labels, label)
        or _refuse_other(
            source, "partition label", filters.partition_labels, superblock.partition_label
        )
        or _refuse_other(source, "partition type", types, superblock.partition_type)
    )


def show(text: str, limit: int = SHOWN) -> str:
    """Make a name from outside harmless: short, and printable without tricks."""
    shown = printable(text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def _refuse_device(source: Source, filters: Filters, store: str) -> Problem | None:
    own = _refuse_kind(source, store) or _refuse_own(source, source.partition_label, filters)
    if own:
        return own
    patterns = filters.devices
    if patterns and not any(fnmatchcase(source.id.path, pattern) for pattern in patterns):
        return _filtered(source, " or ".join(patterns), source.id.path, "devices")
    if filters.removable not in (None, source.removable):
        names = ("a removable device", "a fixed one")
        wanted, got = names if filters.removable else reversed(names)
        return _filtered(source, wanted, got, "removable")
    return None


def _refuse_without_file(source: Source, superblock: Superblock, filters: Filters) -> Problem:
    if not filters.files:
        got = "a file system in which no file is looked for"
        return _filtered(source, "the image itself", got, "files")
    expected = " or ".join(filters.files)
    if not superblock.unclean:
        return _filtered(source, expected, "other files only", "files")
    got = "other files only, in a file system that was not unmounted"
    return _refuse(source, expected, got, "unmount it where it was written: no journal is replayed")


def _refuse_kind(source: Source, store: str) -> Problem | None:
    """Why no image is looked for on a device of this kind, whatever the filters say."""
    if source.backing_file.startswith(store.rstrip("/") + "/"):
        hint = "nothing to do: this is how the agent mounts it"
        return _refuse(source, "a medium", "an image of the agent's own store", hint)
    if _NO_MEDIUM.fullmatch(source.id.path):
        hint = "nothing to do: images come on disks, on sticks and as files"
        return _refuse(source, "a medium", "a mapping, memory, a disc or a network", hint)
    if source.partitioned:
        hint = "nothing to do: its partitions are looked at one by one"
        return _refuse(source, "a medium", "a disk with partitions", hint)
    return None


def _refuse_own(source: Source, label: str, filters: Filters) -> Problem | None:
    """Why a partition of the device itself is left alone."""
    if label not in filters.ignored_partition_labels:
        return None
    return _filtered(
        source, "another partition label", f'"{show(label)}"', "ignored_partition_labels"
    )


def _refuse_other(source: Source, what: str, wanted: tuple[str, ...], got: str) -> Problem | None:
    """Exact equality: a label is a string of bytes, not a pattern."""
    if not wanted or got in wanted:
        return None
    expected = what + " " + " or ".join(f'"{name}"' for name in wanted)
    found = f'"{show(got)}"' if got else "none"
    return _filtered(source, expected, found, what.replace(" ", "_") + "s")


def _filtered(source: Source, expected: str, got: str, key: str) -> Problem:
    return _refuse(source, expected, got, f"the configured filter {key} decides this")


def _refuse(
    source: Source, expected: str, got: str, hint: str, code: Code = Code.FILTER
) -> Problem:
    place = show(source.id.path, SHOWN_PATH)
    return Problem(code, f"cannot use {place}: expected {expected}, got {got}", hint)
