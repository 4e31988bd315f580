"""What is read in /sys, on trees laid out as the kernel lays them out."""

import socket
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from extsloader.adapters import udev
from extsloader.adapters.udev import UdevSources
from extsloader.model.errors import MachineError
from extsloader.model.ids import SourceId
from extsloader.model.source import Source, SourceKind

STICK = Source(
    id=SourceId("/dev/sda", "21"), kind=SourceKind.DEVICE, size=4096, removable=True, devno="8:0"
)


class Sysfs:
    """Disks below devices/, each with its link in class/block/."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "class/block").mkdir(parents=True)

    def add(
        self,
        path: str,
        *,
        sectors: int = 8,
        devno: str = "8:0",
        diskseq: str = "21",
        partition: int = 0,
        removable: str = "",
    ) -> Path:
        directory = self.root / "devices/pci0/block" / path
        directory.mkdir(parents=True)
        (directory / "dev").write_text(f"{devno}\n")
        if partition:
            (directory / "partition").write_text(f"{partition}\n")
        elif diskseq:
            (directory / "diskseq").write_text(f"{diskseq}\n")
        (directory / "size").write_text(f"{sectors}\n")
        if removable:
            (directory / "removable").write_text(f"{removable}\n")
        (self.root / "class/block" / directory.name).symlink_to(f"../../devices/pci0/block/{path}")
        return directory

    def sources(self) -> tuple[Source, ...]:
        return UdevSources(str(self.root)).list_sources()


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    return Sysfs(tmp_path)


def test_a_disk_and_its_partition(sysfs: Sysfs) -> None:
    sysfs.add("sda", removable="1")
    sysfs.add("sda/sda3", sectors=2, devno="8:3", partition=3)
    part = replace(
        STICK,
        id=SourceId("/dev/sda3", "21.3"),
        size=1024,
        devno="8:3",
        disk="/dev/sda",
        partition=3,
    )
    assert sysfs.sources() == (replace(STICK, partitioned=True), part)


def test_the_kernel_says_what_a_partition_is_called_and_which_disks_have_some(
    sysfs: Sysfs,
) -> None:
    sysfs.add("sda", removable="1")
    part = sysfs.add("sda/sda1", devno="8:1", partition=1)
    (part / "uevent").write_text("DEVTYPE=partition\nPARTN=1\nPARTNAME=EFI System\n")
    sysfs.add("sdb", removable="1")

    found = {source.id.path: source for source in sysfs.sources()}

    assert found["/dev/sda1"].partition_label == "EFI System"
    assert [found[f"/dev/{n}"].partitioned for n in ("sda", "sda1", "sdb")] == [True, False, False]


def test_a_fixed_disk_of_an_old_kernel_is_told_by_its_number(sysfs: Sysfs) -> None:
    sysfs.add("sda", removable="0", diskseq="")
    assert sysfs.sources() == (replace(STICK, id=SourceId("/dev/sda", "8:0"), removable=False),)


def test_a_drive_without_medium_is_no_source(sysfs: Sysfs) -> None:
    sysfs.add("sr0", sectors=0, removable="1")
    assert sysfs.sources() == ()


def test_a_slash_in_a_node_is_written_otherwise_in_sys(sysfs: Sysfs) -> None:
    sysfs.add("cciss!c0d0", removable="0")
    sysfs.add("cciss!c0d0/cciss!c0d0p1", partition=1)
    whole, part = sysfs.sources()
    assert whole.id.path == "/dev/cciss/c0d0"
    assert (part.id.path, part.disk) == ("/dev/cciss/c0d0p1", "/dev/cciss/c0d0")


def test_a_loop_device_says_which_file_it_shows(sysfs: Sysfs) -> None:
    directory = sysfs.add("loop0", removable="0")
    (directory / "loop").mkdir()
    (directory / "loop/backing_file").write_bytes(b"/persist/a \xff.img (deleted)\n")
    assert sysfs.sources()[0].backing_file == "/persist/a \N{REPLACEMENT CHARACTER}.img (deleted)"


def test_so_does_a_mapping_that_lies_on_it(sysfs: Sysfs) -> None:
    loop = sysfs.add("loop0", devno="7:0", removable="0")
    (loop / "loop").mkdir()
    (loop / "loop/backing_file").write_text("/persist/a.img\n")
    mapping = sysfs.add("dm-0", devno="254:0", removable="0")
    (mapping / "slaves").mkdir()
    (mapping / "slaves/loop0").symlink_to(loop)

    assert {source.backing_file for source in sysfs.sources()} == {"/persist/a.img"}


@pytest.mark.parametrize("missing", ["dev", "size", "removable"])
def test_a_device_that_vanishes_while_it_is_read_is_gone(sysfs: Sysfs, missing: str) -> None:
    directory = sysfs.add("sda", removable="1")
    (directory / missing).unlink()
    assert sysfs.sources() == ()


def test_a_link_to_nothing_is_gone(sysfs: Sysfs) -> None:
    sysfs.add("sda", removable="1").rename(sysfs.root / "elsewhere")
    assert sysfs.sources() == ()


@pytest.mark.parametrize("name", ["-rf", "..sda", "sd\na", "sda;id", "sdä", "a!!b", "!a", "a!"])
def test_names_that_no_kernel_gives_are_left_out(sysfs: Sysfs, name: str) -> None:
    sysfs.add(name, removable="1")
    assert sysfs.sources() == ()


@pytest.mark.parametrize("name", ["nvme0n1p1", "mmcblk0boot0", "dm-3", "md127", "vdb", "nbd1"])
def test_names_that_kernels_give(sysfs: Sysfs, name: str) -> None:
    sysfs.add(name, removable="0")
    assert [source.id.path for source in sysfs.sources()] == [f"/dev/{name}"]


def test_without_sys_there_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="E_IO: cannot list block devices: no such file"):
        UdevSources(str(tmp_path)).list_sources()


def test_closing_what_was_never_started_is_allowed() -> None:
    UdevSources().close()


def test_the_receive_buffer_is_never_made_smaller() -> None:
    _, control = udev.open_monitor()
    with control:
        assert control.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= udev.RECEIVE_BUFFER


@pytest.mark.parametrize("error", [OSError("overrun"), ValueError("malformed"), MemoryError()])
def test_a_message_that_cannot_be_read_costs_no_other_one(error: Exception) -> None:
    """pyudev raises ValueError for EINVAL; all that is lost is found by listing the devices."""

    class Monitor:
        answers = iter((STRANGER, error, STRANGER, None))

        def poll(self, timeout: int) -> object:
            assert timeout == 0
            answer = next(self.answers)
            if isinstance(answer, Exception):
                raise answer
            return answer

    with socket.socket(socket.AF_UNIX) as control:
        assert udev._drain(Monitor(), control) == ({"sdz": "add"}, True)


STRANGER = SimpleNamespace(device_path="/devices/sdz", action="add")
