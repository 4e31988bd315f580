"""The squashfs of an image, the same bytes for the same content."""

from dataclasses import dataclass
from pathlib import Path

from extsloader.imagebuild.tools import as_root, run_tool

EPOCH = 1492533000
"""2017-04-18 16:30 UTC, the time that LinuxKit gives to everything it makes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compression:
    """How hard to compress, and for whom."""

    kind: str = "zstd"  # "xz": EVE's GRUB reads gzip and xz only
    level: int = 3  # Zstandard's; 9 saves 6 % and takes three times as long, 15 twelve times
    block: int = 128 << 10  # bytes that are compressed together, 4 KiB to 1 MiB
    filters: str = ""  # xz's for machine code, such as "x86" (mksquashfs(1), "-Xbcj")


DEFAULT = Compression()


def squash_tree(tree: Path, out: Path, compression: Compression = DEFAULT) -> None:
    """Make a squashfs of a directory. Raises MachineError."""
    command = ["mksquashfs", str(tree), str(out), "-no-xattrs", *_options(compression)]
    run_tool(as_root(command), f"make {out.name}")


def squash_tar(tar: Path, out: Path, compression: Compression = DEFAULT) -> None:
    """Make a squashfs of a tar file, extended attributes included; needs no root.

    Raises MachineError.
    """
    # sqfstar 4.5.1 takes no compression level, and from a tar the root would get mode 0777.
    with tar.open("rb") as file:
        command = ["mksquashfs", "-", str(out), "-tar", *_options(compression)]
        run_tool(as_root(command), f"make {out.name}", stdin=file)


def _options(compression: Compression) -> list[str]:
    filters = ["-Xbcj", compression.filters] if compression.filters else []
    how = ["-Xcompression-level", str(compression.level)] if compression.kind == "zstd" else filters
    return [
        "-noappend", "-no-progress", "-quiet", "-root-mode", "0755",
        "-comp", compression.kind, *how, "-b", str(compression.block),
        "-mkfs-time", str(EPOCH), "-all-time", str(EPOCH),
    ]  # fmt: skip
