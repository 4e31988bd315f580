"""The squashfs of an image, the same bytes for the same content."""

import os
from pathlib import Path

from extsloader.imagebuild.tools import run_tool

EPOCH = 1492533000
"""2017-04-18 16:30 UTC, the time that LinuxKit gives to everything it makes."""

LEVEL = 3
"""Zstandard level: 9 saves 6 % and takes three times as long, 15 and more twelve times."""


def squash_tree(tree: Path, out: Path, *, level: int = LEVEL) -> None:
    """Make a squashfs of a directory. Raises MachineError."""
    run_tool([*_as_root(), "mksquashfs", str(tree), str(out), *_options(level)], f"make {out.name}")


def squash_tar(tar: Path, out: Path, *, level: int = LEVEL) -> None:
    """Make a squashfs of a tar file; needs no root. Raises MachineError."""
    # sqfstar 4.5.1 takes no compression level, and from a tar the root would get mode 0777.
    with tar.open("rb") as file:
        run_tool(
            [*_as_root(), "mksquashfs", "-", str(out), "-tar", *_options(level)],
            f"make {out.name}", stdin=file,
        )  # fmt: skip


def _as_root() -> list[str]:
    """Without this, the root directory of an image belongs to whoever built it."""
    return [] if os.geteuid() == 0 else ["unshare", "--map-root-user"]


def _options(level: int) -> list[str]:
    return [
        "-noappend", "-no-progress", "-quiet", "-no-xattrs", "-root-mode", "0755",
        "-comp", "zstd", "-Xcompression-level", str(level),
        "-mkfs-time", str(EPOCH), "-all-time", str(EPOCH),
    ]  # fmt: skip
