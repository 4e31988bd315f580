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
_FIRST = 0x20000  # behind the stub's own sections, which end below (checked)
_ALIGNMENT = 0x1000  # UAPI.5: sections may not share a page
_PE_AT = 0x3C  # e_lfanew


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


def extract_sources(tree: Tree, scratch: Path) -> dict[str, Path]:
    """Copy what boots out of a root file system; by section. Raises MachineError."""
    if missing := [path for path in SOURCES.values() if path not in tree]:
        reason = f"its root file system has no {' and no '.join(missing)}"
        hint = "name a kernel with an initramfs in the image definition"
        raise MachineError(Code.LAYOUT, "make a bootable disk", reason, hint)
    found = {}
    for section, path in SOURCES.items():
        found[section] = scratch / section[1:]
        found[section].write_bytes(read_content(tree[path]))
    return found


def make_uki(out: Path, architecture: str, sections: Mapping[str, Path]) -> None:
    """Put the sections behind the stub. Raises MachineError."""
    stub = _STUBS / FIRMWARE[architecture].stub
    if not stub.exists():
        hint = "apt-get install systemd-boot-efi"
        raise MachineError(Code.IO, "make a bootable disk", f"{stub} is missing", hint)
    run_tool(["objcopy", *_place(sections), str(stub), str(out)], "join kernel and boot stub")
    _strip_time(out)


def _place(sections: Mapping[str, Path]) -> list[str]:
    words, address = [], _FIRST
    for name, path in sections.items():
        words += ["--add-section", f"{name}={path}"]
        words += ["--change-section-vma", f"{name}={address:#x}"]
        address += -(-path.stat().st_size // _ALIGNMENT) * _ALIGNMENT
    return words


def _strip_time(program: Path) -> None:
    """Objcopy writes the time of day into the COFF header; the checksum nobody looks at goes."""
    with program.open("r+b") as file:
        file.seek(_PE_AT)
        (start,) = struct.unpack("<I", file.read(4))
        file.seek(start + 8)
        file.write(struct.pack("<I", EPOCH))
        file.seek(start + 88)
        file.write(bytes(4))
