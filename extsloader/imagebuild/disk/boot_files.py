"""Kernel, initramfs and command line of a finished disk, for a start without the firmware.

They are sections of the unified kernel image in the EFI system partition (UAPI.5).
"""

import struct
from dataclasses import replace
from pathlib import Path

from extsloader.imagebuild.disk.partitions import copy_partition
from extsloader.imagebuild.disk.qemu import Kernel
from extsloader.imagebuild.tools import run_tool
from extsloader.model.errors import MachineError
from extsloader.model.reasons import Code

_EFI = "EFI System"
_UKI = "::EFI/BOOT/BOOTX64.EFI"
_HEADER_AT = 0x3C  # e_lfanew of the DOS header
_HEADER = struct.Struct("<4s 2x H 12x H 2x")  # signature and COFF header
_SECTION = struct.Struct("<8s I 4x II 16x")  # name, size in memory, size and place in the file


def extract_kernel(disk: Path, folder: Path) -> Kernel:
    """Put kernel and initramfs of a disk into a directory. Raises MachineError."""
    partition, uki = folder / "efi.img", folder / "uki.efi"
    copy_partition(disk, _EFI, partition)
    run_tool(["mcopy", "-n", "-i", str(partition), _UKI, str(uki)], f"read {_UKI[2:]} of {disk}")
    partition.unlink()
    sections = read_sections(uki.read_bytes())
    if missing := {".linux", ".initrd", ".cmdline"} - sections.keys():
        reason = f"its boot loader has no section {' and '.join(sorted(missing))}"
        raise MachineError(Code.LAYOUT, f"boot {disk} without firmware", reason)
    kernel = Kernel(
        linux=folder / "linux",
        initrd=folder / "initrd",
        cmdline=sections[".cmdline"].decode().strip("\0\n "),
    )
    kernel.linux.write_bytes(sections[".linux"])
    kernel.initrd.write_bytes(sections[".initrd"])
    return kernel


def read_sections(program: bytes) -> dict[str, bytes]:
    """The sections of a PE file by name (PE format, "Section Table"); {} for anything else."""
    try:
        (start,) = struct.unpack_from("<I", program, _HEADER_AT)
        signature, count, optional = _HEADER.unpack_from(program, start)
        if signature != b"PE\0\0":
            return {}
        table = start + _HEADER.size + optional
        headers = [_SECTION.unpack_from(program, table + i * _SECTION.size) for i in range(count)]
    except struct.error:
        return {}
    return {
        name.rstrip(b"\0").decode("ascii", "replace"): program[at : at + min(used, stored)]
        for name, used, stored, at in headers
    }


def with_words(kernel: Kernel, words: str) -> Kernel:
    """The same with more on its command line."""
    return replace(kernel, cmdline=f"{kernel.cmdline} {words}".strip())
