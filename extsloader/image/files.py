"""What the readers of file systems have in common: a file that lies in one, in pieces."""

from dataclasses import dataclass

from extsloader.model.reasons import Code

MAX_DIRECTORY = 2 << 20  # bytes; 65,536 entries of a FAT, the format's own limit
MAX_EXTENTS = 1 << 16


class FileSystemError(Exception):
    """The file system cannot be used; the text says why.

    E_LAYOUT: it is damaged. E_FS_TYPE: nobody here can read it. E_PATH: the name is no file's.
    """

    def __init__(self, reason: str, code: Code = Code.LAYOUT) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True, slots=True)
class Extent:
    """Bytes of the file that follow each other on the medium."""

    start: int  # in the file
    offset: int | None  # on the medium; None: a hole, bytes that were never written and read as 0
    size: int


@dataclass(frozen=True, slots=True)
class File:
    """A file of the root directory."""

    name: str  # as it was asked for
    node: int  # where it begins: its first cluster, or its inode
    size: int  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What the root directory holds of what was looked for."""

    label: str = ""
    file: File | None = None
    unclean: bool = False  # what was written last may be in a journal, which nobody here replays


def add_extent(extents: list[Extent], offset: int | None, size: int) -> None:
    """Add what follows in the file, as one piece with the last where it follows on the medium too.

    Raises FileSystemError for a file in too many pieces.
    """
    last = extents[-1] if extents else Extent(0, 0, 0)
    follows = None if last.offset is None else last.offset + last.size
    if extents and offset == follows:
        extents[-1] = Extent(last.start, last.offset, last.size + size)
    else:
        extents.append(Extent(last.start + last.size, offset, size))
    if len(extents) > MAX_EXTENTS:
        raise FileSystemError(f"the file is in more than {MAX_EXTENTS} pieces")
