from pathlib import Path

import pytest

from extsloader.imagebuild.disk.qemu import (
    VVFAT_LIMIT,
    Host,
    Kernel,
    Machine,
    Via,
    choose_accelerator,
    fits_vvfat,
    plan_machine,
    plan_pkgs,
)
from extsloader.imagebuild.main import VIA

TCG = choose_accelerator(Host(kvm=False, virtualises=False))


@pytest.mark.parametrize(
    ("kvm", "virtualises", "name", "why"),
    [
        (True, True, "kvm", ""),
        (True, False, "tcg", "no vmx or svm"),
        (False, True, "tcg", "/dev/kvm cannot be used"),
        (False, False, "tcg", "no vmx or svm"),
    ],
)
def test_kvm_is_used_only_where_the_processor_can_do_it(
    *, kvm: bool, virtualises: bool, name: str, why: str
) -> None:
    chosen = choose_accelerator(Host(kvm=kvm, virtualises=virtualises))
    assert chosen.name.split(",")[0] == name
    assert why in chosen.remark
    assert bool(chosen.remark) == (name == "tcg")


def test_the_disk_is_only_written_on_request() -> None:
    assert "snapshot=on" in drive("boot", plan(Machine(disk=Path("d.qcow2"))))
    assert "snapshot=off" in drive("boot", plan(Machine(disk=Path("d.qcow2"), write=True)))


def test_the_firmware_boots_unless_there_is_a_kernel() -> None:
    kernel = Kernel(linux=Path("l"), initrd=Path("i"), cmdline="quiet a=b")
    by_firmware = plan(Machine(disk=Path("d")))
    directly = plan(Machine(disk=Path("d"), kernel=kernel))
    assert sum("if=pflash" in word for word in by_firmware) == 2
    assert not any("if=pflash" in word for word in directly)
    assert directly[directly.index("-append") + 1] == "quiet a=b"


def test_what_persists_is_a_disk_of_its_own() -> None:
    words = plan(Machine(disk=Path("d"), persist=Path("p.raw")))
    assert drive("persist", words).endswith("file=p.raw")
    assert "snapshot" not in drive("persist", words)


def test_serial_lines_come_in_order() -> None:
    words = plan_machine(Machine(disk=Path("d")), TCG, ["mon:stdio", "chardev:shell"])
    assert [words[i + 1] for i, word in enumerate(words) if word == "-serial"] == [
        "mon:stdio",
        "chardev:shell",
    ]


@pytest.mark.parametrize(
    ("via", "device"),
    [
        (Via.VVFAT, "usb-storage"),
        (Via.USB, "usb-storage"),
        (Via.VIRTIO, "virtio-blk-pci"),
        (Via.PARTITION, "virtio-blk-pci"),
    ],
)
def test_every_road_is_read_only(via: Via, device: str) -> None:
    words = plan_pkgs(via, Path("x"))
    assert "readonly=on" in drive("pkgs", words)
    assert words[-1].startswith(f"{device},")
    assert "drive=pkgs" in words[-1]


def test_a_comma_in_a_file_name_does_not_end_the_option() -> None:
    assert "file=/a,,b.img" in drive("pkgs", plan_pkgs(Via.USB, Path("/a,b.img")))


def test_vvfat_has_an_end() -> None:
    assert fits_vvfat(VVFAT_LIMIT - (2 << 20))
    assert not fits_vvfat(VVFAT_LIMIT)


def test_the_command_line_knows_every_road() -> None:
    assert list(Via) == list(VIA)


def plan(machine: Machine) -> list[str]:
    return plan_machine(machine, TCG, ["null"])


def drive(name: str, words: list[str]) -> str:
    return next(word for word in words if word.startswith("if=none") and f"id={name}," in word)
