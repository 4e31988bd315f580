"""The unified kernel image (UAPI.5): boot stub, kernel, initramfs and command line in one file.

Debian 12 has no `ukify`; objcopy does what it would do.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from extsloader.imagebuild.squashfs import EPOCH
from extsloader.imagebuild.tools import run_tool
from extsloader.imagebuild.tree import Tree, read_content
from extsloader.model.errors import MachineError
from extsloader.model.reasons import Code

_STUBS = Path("/usr/lib/systemd/boot/efi")
_ALIGNMENT = 0x1000  # UAPI.5: sections may not share a page
_PE_AT = 0x3C  # e_lfanew
_OPTIONAL = 24  # where the optional header begins, after signature and COFF header


@dataclass(frozen=True, slots=True)
class Firmware:
    """What UEFI loads without being told: UEFI specification, section 3.5.1.1."""

    stub: str
    name: str


FIRMWARE = {
    "amd64": Firmware("linuxx64.efi.stub", "BOOTX64.EFI"),
    "arm64": Firmware("linuxaa64.efi.stub", "BOOTAA64.EFI"),
}

SOURCES = {
    ".osrel": "usr/lib/os-release",
    ".cmdline": "boot/cmdline",
    ".linux": "boot/kernel",
    ".initrd": "boot/initrd.img",
}
"""Sections and the files of a root file system that they hold."""


def extract_sources(tree: Tree, more_words: str, scratch: Path) -> dict[str, Path]:
    """Copy what boots out of a root file system; by section. Raises MachineError."""
    if missing := [path for path in SOURCES.values() if path not in tree]:
        reason = f"its root file system has no {' and no '.join(missing)}"
        hint = "name a kernel with an initramfs in the image definition"
        raise MachineError(Code.LAYOUT, "make a bootable disk", reason, hint)
    found = {}
    for section, path in SOURCES.items():
        found[section] = scratch / section[1:]
        found[section].write_bytes(read_content(tree[path]))
    if more_words:
        words = found[".cmdline"].read_text().strip()
        found[".cmdline"].write_text(f"{words} {more_words}")
    return found


def make_uki(out: Path, architecture: str, sections: Mapping[str, Path]) -> None:
    """Put the sections behind the stub. Raises MachineError."""
    stub = _STUBS / FIRMWARE[architecture].stub
    if not stub.exists():
        hint = "apt-get install systemd-boot-efi"
        raise MachineError(Code.IO, "make a bootable disk", f"{stub} is missing", hint)
    placed = _place(sections, find_end(stub.read_bytes()))
    run_tool(["objcopy", *placed, str(stub), str(out)], "join kernel and boot stub")
    _strip_time(out)


def find_end(stub: bytes) -> int:
    """The first address behind a stub's own sections (PE format, "Optional Header")."""
    (start,) = struct.unpack_from("<I", stub, _PE_AT)
    base, size = struct.unpack_from("<Q 24x I", stub, start + _OPTIONAL + 24)
    return int(base) + _round_up(size)


def _place(sections: Mapping[str, Path], address: int) -> list[str]:
    """What makes objcopy put sections one after the other, from an address on."""
    words = []
    for name, path in sections.items():
        words += ["--add-section", f"{name}={path}"]
        words += ["--change-section-vma", f"{name}={address:#x}"]
        address += _round_up(path.stat().st_size)
    return words


def _round_up(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _strip_time(program: Path) -> None:
    """Objcopy writes the time of day into the COFF header; the checksum nobody looks at goes."""
    with program.open("r+b") as file:
        file.seek(_PE_AT)
        (start,) = struct.unpack("<I", file.read(4))
        file.seek(start + 8)
        file.write(struct.pack("<I", EPOCH))
        file.seek(start + _OPTIONAL + 64)
        file.write(bytes(4))
