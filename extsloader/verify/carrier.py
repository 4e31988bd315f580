"""An image that lies as a file in a file system: found without mounting, read where it lies."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from extsloader.image import ext4, fat
from extsloader.image.files import FileSystemError
from extsloader.image.superblock import read_superblock
from extsloader.model.errors import ImageRefusedError
from extsloader.model.reasons import Code
from extsloader.model.source import FsType, SourceKind, Superblock
from extsloader.verify.medium import Medium

_Found = TypeVar("_Found")

_READERS = {FsType.VFAT: fat, FsType.EXT: ext4}
_HINTS = {
    Code.LAYOUT: "check the stick with fsck, or write it anew",
    Code.FS_TYPE: "make the file system anew with mkfs.ext4 or mkfs.vfat",
    Code.PATH: "put the file itself there, not a link or a directory",
}


def look_into(medium: Medium, superblock: Superblock, files: Sequence[str]) -> Superblock:
    """Add what the root directory of a carrier says. Raises ImageRefusedError as `find_image`."""
    reader = _READERS.get(superblock.fs_type)
    if reader is None:
        return superblock
    listing = _read(medium, lambda: reader.list_root(medium.read, medium.source.size, files))
    return replace(
        superblock,
        label=listing.label or superblock.label,
        file=listing.file.name if listing.file else "",
        unclean=listing.unclean,
    )


def find_image(medium: Medium, files: Sequence[str]) -> Medium:
    """The medium itself, or the first of `files` in its vfat or ext4.

    A file of our own store is an image and nothing else: its descriptor is what gets mounted.
    Raises ImageRefusedError: E_LAYOUT for a damaged file system, E_FS_TYPE for one with features
    that nobody here knows, E_PATH for a link, E_FILTER without such a file.
    """
    if not files or medium.source.kind is SourceKind.STORED:
        return medium
    reader = _READERS.get(read_superblock(medium.read).fs_type)
    if reader is None:
        return medium
    size = medium.source.size
    file = _read(medium, lambda: reader.list_root(medium.read, size, files)).file
    if file is None or not file.size:
        got = f"{file.name} is empty" if file else f"it holds no {' or '.join(files)}"
        raise ImageRefusedError(Code.FILTER, f"cannot use {medium.source.id}: {got}")
    extents = _read(medium, lambda: reader.find_extents(medium.read, size, file))
    return replace(medium, extents=extents)


def _read(medium: Medium, look: Callable[[], _Found]) -> _Found:
    try:
        return look()
    except FileSystemError as error:
        what = "its file system is damaged: " if error.code is Code.LAYOUT else ""
        raise ImageRefusedError(
            error.code, f"cannot read {medium.source.id}: {what}{error}", _HINTS[error.code]
        ) from error
