"""Names of things, so that mypy can tell them apart."""

from dataclasses import dataclass
from typing import NewType

ServiceName = NewType("ServiceName", str)
"""A service of the image: matches `NAME` as a whole, and is none of `RESERVED`."""

NAME = "[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?"

RESERVED = frozenset({"con", "extsloader", "self", "tasks"})
"""Names of our own and of special files, kept out of paths that are built from service names."""

Digest = NewType("Digest", str)
"""SHA-256 of an image (squashfs and hash tree, without the trailer), 64 lower-case hex digits."""


def short(digest: Digest) -> str:
    """First 12 hex digits: enough to tell a device's images apart in paths and in tables."""
    return digest[:12]


@dataclass(frozen=True, slots=True, order=True)
class SourceId:
    """One medium in one place for as long as it stays there.

    The kernel reuses `/dev/sdb1` for the next stick, so a path alone is no identity.
    `generation` is the DISKSEQ of a device (Documentation/ABI/testing/sysfs-block, "diskseq"),
    and inode, size and change time of a file.
    """

    path: str
    generation: str

    def __str__(self) -> str:
        return self.path
