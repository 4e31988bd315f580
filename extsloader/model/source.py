"""Places where an image may be found, and what was seen there before anything was trusted."""

from dataclasses import dataclass
from enum import StrEnum

from extsloader.model.ids import SourceId


class SourceKind(StrEnum):
    """How a source is opened and what is checked about its identity."""

    DEVICE = "device"  # a block device with a medium in it
    FILE = "file"  # a regular file in a watched directory
    STORED = "stored"  # an image in our own store, kept by an earlier verification


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What the kernel says about a source: no byte of its content has been read."""

    id: SourceId
    kind: SourceKind
    size: int  # bytes
    removable: bool = False
    devno: str = ""  # "major:minor" of a device
    disk: str = ""  # node of the whole disk when the source is a partition
    partition: int = 0  # its number there, from 1
    partition_label: str = ""  # as the kernel read it; decides only what need not be read at all
    partitioned: bool = False  # a disk whose partitions are sources themselves
    backing_file: str = ""  # of a loop device, or of the one below a device of the mapper


def device_generation(diskseq: str, partition: int, devno: str) -> str:
    """A device's `SourceId.generation`; kernels before 5.15 have no DISKSEQ: its number must do."""
    if not diskseq:
        return devno
    return f"{diskseq}.{partition}" if partition else diskseq


def file_generation(inode: int, size: int, changed_ns: int) -> str:
    """A file's `SourceId.generation`: whoever writes to a file changes its change time."""
    return f"{inode}-{size}-{changed_ns}"


def name_place(path: str, file: str) -> str:
    """How people are told where an image is: `/dev/sdb1:rootfs-pkgs.img` in a file system."""
    return f"{path}:{file}" if file else path


class FsType(StrEnum):
    """File systems and tables that the superblock readers know."""

    SQUASHFS = "squashfs"
    EXT = "ext4"
    VFAT = "vfat"
    EXFAT = "exfat"
    NTFS = "ntfs"
    GPT = "gpt"
    UNKNOWN = "unknown"


CARRIERS = frozenset({FsType.VFAT, FsType.EXT})
"""File systems in whose root directory an image may lie as a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Superblock:
    """What a bounded read of the first sectors shows; labels are bytes from outside: show escaped.

    squashfs has no label, so a label can only come from the partition entry or another carrier.
    """

    fs_type: FsType
    label: str = ""
    used: int = 0  # bytes that the file system claims to use, 0 where it does not say
    partition_label: str = ""
    partition_type: str = ""  # type GUID, upper case
    file: str = ""  # the image file in a file system, by its name in `Filters.files`
    unclean: bool = False  # a file system that was not unmounted: its last files may not be seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which sources may become candidates; an empty tuple lets everything through."""

    fs_types: tuple[FsType, ...] = (FsType.SQUASHFS, FsType.VFAT, FsType.EXT)
    files: tuple[str, ...] = ("rootfs-pkgs.img", "ext-imga.img", "ext-imgb.img", "pkgs.img")
    # names of images in the root directory of a vfat or ext4, the best first
    labels: tuple[str, ...] = ()
    partition_labels: tuple[str, ...] = ()
    partition_types: tuple[str, ...] = ()
    min_size: int = 8192  # bytes; nothing smaller can hold superblock and trailer
    max_size: int = 16 << 40  # bytes: a small image may lie on a large stick
    removable: bool | None = None  # None: both
    ignored_partition_labels: tuple[str, ...] = ("CONFIG", "EFI System", "IMGA", "IMGB", "P3")
    # EVE's own: none of them ever holds a pkgs image
    devices: tuple[str, ...] = ()  # glob patterns of device nodes, e.g. "/dev/sd*"
