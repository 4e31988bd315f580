"""The command line of a virtual machine that boots the disk: facts and wishes in, words out."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

PROGRAM = "qemu-system-x86_64"
OVMF = Path("/usr/share/OVMF")
VVFAT_LIMIT = 504 << 20
"""Bytes of the whole disk that QEMU makes of a directory (docs: "Virtual FAT disk images")."""

_VVFAT_OVERHEAD = 1 << 20  # partition table, two allocation tables, directory: 260 KiB measured


class Via(StrEnum):
    """Roads by which a pkgs image reaches the machine."""

    VVFAT = "vvfat"  # a USB stick with a vfat that holds the image as a file
    VIRTIO = "virtio"  # a disk that is the image
    USB = "usb"  # a USB stick that is the image
    PARTITION = "partition"  # a disk with one partition, PKGS, that is the image


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What this machine says about itself."""

    kvm: bool  # /dev/kvm can be opened
    virtualises: bool  # the processor has vmx or svm


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """How the guest's instructions are run."""

    name: str
    cpu: str
    remark: str = ""  # why it is slow


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """What to start without a firmware."""

    linux: Path
    initrd: Path
    cmdline: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What to boot; without a kernel the firmware takes the one on the disk."""

    disk: Path  # qcow2
    write: bool = False  # keep on the disk what the guest writes
    memory: int = 1024  # MiB
    cpus: int = 2
    kernel: Kernel | None = None
    persist: Path | None = None  # raw disk


def choose_accelerator(host: Host) -> Accelerator:
    """KVM only where the processor can do it.

    /dev/kvm alone proves nothing: where a hypervisor emulates it without vmx or svm, a stock kernel
    stops in the middle of its boot.
    """
    if host.kvm and host.virtualises:
        return Accelerator(name="kvm", cpu="host")
    why = "/dev/kvm cannot be used" if host.virtualises else "the processor has no vmx or svm"
    return Accelerator(
        name="tcg,thread=multi", cpu="max", remark=f"without KVM, therefore slowly: {why}"
    )


def plan_machine(machine: Machine, accelerator: Accelerator, serials: Iterable[str]) -> list[str]:
    """The whole command but for pkgs images; `serials` are the ends of ttyS0, ttyS1..."""
    snapshot = "off" if machine.write else "on"
    return [
        PROGRAM, "-nodefaults", "-display", "none",
        "-machine", "q35", "-accel", accelerator.name, "-cpu", accelerator.cpu,
        "-m", str(machine.memory), "-smp", str(machine.cpus),
        *(word for serial in serials for word in ("-serial", serial)),
        "-device", "virtio-rng-pci", "-device", "qemu-xhci,id=xhci",
        *(_kernel(machine.kernel) if machine.kernel else _firmware()),
        *_drive("boot", machine.disk, f"format=qcow2,snapshot={snapshot}"),
        "-device", "virtio-blk-pci,drive=boot,bootindex=1,serial=boot",
        *(_persist(machine.persist) if machine.persist else ()),
    ]  # fmt: skip


def plan_pkgs(via: Via, source: Path) -> list[str]:
    """Words that add the pkgs image; `source` is a directory with it for vvfat, else a raw disk."""
    if via is Via.VVFAT:
        drive = _drive("pkgs", f"fat:ro:{source}", "format=raw,readonly=on,file.label=PKGS")
    else:
        drive = _drive("pkgs", source, "format=raw,readonly=on")
    device = "usb-storage,bus=xhci.0,removable=on" if via in _STICKS else "virtio-blk-pci"
    return [*drive, "-device", f"{device},drive=pkgs,serial=pkgs"]


_STICKS = (Via.VVFAT, Via.USB)


def fits_vvfat(size: int) -> bool:
    """Whether a file of so many bytes fits the disk that QEMU makes of a directory."""
    return size <= VVFAT_LIMIT - _VVFAT_OVERHEAD


def _kernel(kernel: Kernel) -> list[str]:
    files = ["-kernel", str(kernel.linux), "-initrd", str(kernel.initrd)]
    return [*files, "-append", kernel.cmdline]


def _firmware() -> list[str]:
    """The variables start anew each time: nothing in them is needed."""
    flash = "if=pflash,format=raw"
    return [
        "-drive", f"{flash},unit=0,readonly=on,file={OVMF}/OVMF_CODE_4M.fd",
        "-drive", f"{flash},unit=1,snapshot=on,file={OVMF}/OVMF_VARS_4M.fd",
    ]  # fmt: skip


def _persist(disk: Path) -> list[str]:
    drive = _drive("persist", disk, "format=raw")
    return [*drive, "-device", "virtio-blk-pci,drive=persist,serial=persist"]


def _drive(name: str, file: Path | str, options: str) -> list[str]:
    """A comma in a file name is written twice (qemu(1))."""
    return ["-drive", f"if=none,id={name},{options},file={str(file).replace(',', ',,')}"]
