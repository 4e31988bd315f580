"""An image that lies as a file in a file system: found without mounting, read where it lies."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from extsloader.image.fat import FatError, find_extents, list_root
from extsloader.image.superblock import read_superblock
from extsloader.model.errors import ImageRefusedError
from extsloader.model.reasons import Code
from extsloader.model.source import FsType, SourceKind, Superblock
from extsloader.verify.medium import Medium

_Found = TypeVar("_Found")


def look_into(medium: Medium, superblock: Superblock, files: Sequence[str]) -> Superblock:
    """Add what the root directory of a vfat says. Raises ImageRefusedError(E_LAYOUT)."""
    listing = _read(medium, lambda: list_root(medium.read, medium.source.size, files))
    return replace(
        superblock,
        label=listing.label or superblock.label,
        file=listing.file.name if listing.file else "",
    )


def find_image(medium: Medium, files: Sequence[str]) -> Medium:
    """The medium itself, or the first of `files` in its vfat.

    A file of our own store is an image and nothing else: its descriptor is what gets mounted.
    Raises ImageRefusedError: E_LAYOUT for a damaged file system, E_FILTER without such a file.
    """
    if not files or medium.source.kind is SourceKind.STORED:
        return medium
    if read_superblock(medium.read).fs_type is not FsType.VFAT:
        return medium
    listing = _read(medium, lambda: list_root(medium.read, medium.source.size, files))
    file = listing.file
    if file is None or not file.size:
        got = f"{file.name} is empty" if file else f"it holds no {' or '.join(files)}"
        raise ImageRefusedError(Code.FILTER, f"cannot use {medium.source.id}: {got}")
    extents = _read(medium, lambda: find_extents(medium.read, medium.source.size, file))
    return replace(medium, extents=extents)


def _read(medium: Medium, look: Callable[[], _Found]) -> _Found:
    try:
        return look()
    except FatError as error:
        raise ImageRefusedError(
            Code.LAYOUT,
            f"cannot read {medium.source.id}: its file system is damaged: {error}",
            "check the stick with fsck.vfat, or write it anew",
        ) from error
