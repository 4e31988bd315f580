"""Disks are made with the real tools; what they hold is read back with others."""

import json
import subprocess
from dataclasses import replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pytest

from extsloader.imagebuild.disk.boot_files import read_sections
from extsloader.imagebuild.disk.image import Contents, make_disk
from extsloader.imagebuild.disk.table import MIB, Sizes
from extsloader.imagebuild.tree import Kind, Node, Tree, write_tar
from extsloader.model.errors import MachineError, SettingsError

SMALL = Sizes(efi=34 * MIB, imga=2 * MIB, config=MIB, persist=4 * MIB)
BOOT: Tree = {
    "boot/cmdline": Node(kind=Kind.FILE, content=b"quiet"),
    "boot/initrd.img": Node(kind=Kind.FILE, content=b"initrd" * 1000),
    "boot/kernel": Node(kind=Kind.FILE, content=b"kernel" * 1000),
    "usr/lib/os-release": Node(kind=Kind.FILE, content=b"ID=test\n"),
}


def contents(directory: Path, tree: Tree = BOOT) -> Contents:
    out = BytesIO()
    write_tar(tree, out)
    (directory / "rootfs.tar").write_bytes(out.getvalue())
    (directory / "rootfs.img").write_bytes(b"hsqs" + b"\1" * MIB)
    (directory / "conf").mkdir()
    (directory / "conf/server").write_text("device.example:443\n")
    return Contents(
        tar=directory / "rootfs.tar",
        rootfs=directory / "rootfs.img",
        conf=directory / "conf",
        hypervisor="xen",
        sizes=SMALL,
    )


def resize(parts: Contents, **sizes: int) -> Contents:
    return replace(parts, sizes=replace(parts.sizes, **sizes))


def read_table(disk: Path) -> list[dict[str, str | int]]:
    out = subprocess.run(["sfdisk", "-J", disk], check=True, capture_output=True).stdout
    partitions: list[dict[str, str | int]] = json.loads(out)["partitiontable"]["partitions"]
    return partitions


def read_fat(disk: Path, partition: int, name: str) -> bytes:
    start = int(read_table(disk)[partition]["start"]) * 512
    argv = ["mtype", "-i", f"{disk}@@{start}", f"::{name}"]
    return subprocess.run(argv, check=True, capture_output=True).stdout


def test_a_disk_holds_loader_image_and_configuration(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"

    make_disk(disk, contents(tmp_path), raw=True)

    table = read_table(disk)
    assert [entry["name"] for entry in table] == ["EFI System", "IMGA", "CONFIG", "P3"]
    assert [str(entry["type"])[:8] for entry in table] == [
        "C12A7328", "5DFBF5F4", "13307E62", "5F24425A",
    ]  # fmt: skip
    assert [entry.get("attrs") for entry in table] == [
        "LegacyBIOSBootable", "GUID:49,56", None, None,
    ]  # fmt: skip
    start = int(table[1]["start"]) * 512
    assert disk.read_bytes()[start:].startswith((tmp_path / "rootfs.img").read_bytes())
    assert read_fat(disk, 2, "eve-hv-type") == b"xen"
    assert read_fat(disk, 2, "server") == b"device.example:443\n"


def test_the_loader_holds_what_boots(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    make_disk(disk, contents(tmp_path), raw=True)

    (tmp_path / "uki").write_bytes(read_fat(disk, 0, "EFI/BOOT/BOOTX64.EFI"))
    for section, path in ((".linux", "boot/kernel"), (".cmdline", "boot/cmdline")):
        out = tmp_path / "section"
        dump = ["objcopy", "-O", "binary", "--dump-section", f"{section}={out}", f"{tmp_path}/uki"]
        subprocess.run([*dump, "/dev/null"], check=True)
        assert out.read_bytes() == BOOT[path].content


def test_words_are_added_to_the_command_line(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    make_disk(disk, replace(contents(tmp_path), more_words="a=b"), raw=True)

    assert read_sections(read_fat(disk, 0, "EFI/BOOT/BOOTX64.EFI"))[".cmdline"] == b"quiet a=b"


@pytest.mark.parametrize(("mebibytes", "kind"), [(16, b"FAT16"), (33, b"FAT32")])
def test_firmware_takes_the_file_system_for_what_it_is(
    tmp_path: Path, mebibytes: int, kind: bytes
) -> None:
    disk = tmp_path / "disk.raw"
    make_disk(disk, resize(contents(tmp_path), efi=mebibytes * MIB), raw=True)

    boot = disk.read_bytes()[MIB : MIB + 512]
    assert kind in (boot[54:59], boot[82:87])


def test_a_partition_without_room_for_its_content_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="partition IMGA: expected room"):
        make_disk(tmp_path / "disk.raw", resize(contents(tmp_path), imga=0), raw=True)


def test_a_pkgs_image_gets_a_partition(tmp_path: Path) -> None:
    disk, parts = tmp_path / "disk.raw", contents(tmp_path)
    with_pkgs = replace(resize(parts, pkgs=2 * MIB), pkgs=parts.rootfs)
    make_disk(disk, with_pkgs, raw=True)

    (entry,) = (entry for entry in read_table(disk) if entry["name"] == "PKGS")
    start = int(entry["start"]) * 512
    assert disk.read_bytes()[start:].startswith(parts.rootfs.read_bytes())


def test_the_same_contents_give_the_same_bytes_anywhere(tmp_path: Path) -> None:
    digests = set()
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        disk = tmp_path / name / "disk.qcow2"
        make_disk(disk, contents(tmp_path / name))
        digests.add(sha256(disk.read_bytes()).hexdigest())

    assert len(digests) == 1


def test_an_image_that_does_not_fit_is_refused_with_both_sizes(tmp_path: Path) -> None:
    parts = contents(tmp_path)
    parts.rootfs.write_bytes(b"\1" * (2 * MIB + 1))

    with pytest.raises(
        MachineError,
        match=r"cannot fill partition IMGA: expected at most 2097152 bytes, got 2097153",
    ):
        make_disk(tmp_path / "disk.raw", parts, raw=True)


def test_a_loader_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    tree = BOOT | {"boot/kernel": Node(kind=Kind.FILE, content=bytes(40 * MIB))}

    with pytest.raises(MachineError, match="fill the file system EVE"):
        make_disk(tmp_path / "disk.raw", contents(tmp_path, tree), raw=True)


def test_a_root_file_system_without_a_kernel_makes_no_disk(tmp_path: Path) -> None:
    tree = {path: node for path, node in BOOT.items() if path != "boot/kernel"}

    with pytest.raises(MachineError, match="its root file system has no boot/kernel"):
        make_disk(tmp_path / "disk.raw", contents(tmp_path, tree), raw=True)
