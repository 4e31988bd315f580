"""Block devices come and go on the real kernel: loop, partitions of a real table, zram.

Every device here is one of our own, made for the test and removed after it.
"""

import asyncio
import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import pyudev

from extsloader.adapters import udev
from extsloader.adapters.udev import UdevSources
from extsloader.core.admit import refuse_probed, refuse_unprobed
from extsloader.image.superblock import read_partition, reader
from extsloader.model.errors import ImageRefusedError
from extsloader.model.events import Event, EventsLost, SourceGone, SourceSeen
from extsloader.model.reasons import Code
from extsloader.model.source import Filters, FsType, Source, SourceKind, Superblock
from extsloader.verify.identity import check_source, open_source
from extsloader.verify.probe import probe_source

pytestmark = pytest.mark.root

LOOP_CTL_ADD, LOOP_CTL_REMOVE = 0x4C80, 0x4C81  # include/uapi/linux/loop.h
NETLINK_KOBJECT_UEVENT = 15  # include/uapi/linux/netlink.h
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"


def run(*argv: str | Path, script: str = "") -> None:
    subprocess.run(argv, check=True, capture_output=True, input=script, text=True)


def read(path: str) -> str:
    return Path(path).read_text().strip()


def write(path: str, text: str) -> None:
    Path(path).write_text(text)


class Loop:
    """A loop device of our own; `losetup --find` would share those of everybody else."""

    def __init__(self) -> None:
        self.number = self._control(LOOP_CTL_ADD, -1)
        self.name = f"loop{self.number}"
        self.node = f"/dev/{self.name}"

    def attach(self, image: Path, *options: str) -> None:
        run("losetup", *options, self.node, image)

    def detach(self) -> None:
        run("losetup", "-d", self.node)

    def send(self, action: str, times: int = 1) -> None:
        with Path(f"/sys/block/{self.name}/uevent").open("wb", 0) as file:
            file.writelines([action.encode()] * times)

    def remove(self) -> None:
        subprocess.run(["losetup", "-d", self.node], check=False, capture_output=True)
        self._control(LOOP_CTL_REMOVE, self.number)

    def _control(self, request: int, number: int) -> int:
        with Path("/dev/loop-control").open("rb") as file:
            return fcntl.ioctl(file, request, number)


class Watch:
    """A started adapter and the events that it reports."""

    def __init__(self, sources: UdevSources) -> None:
        self.sources = sources
        self.events = asyncio.Queue[Event]()
        self.paths: set[str] = set()

    def emit(self, event: Event) -> None:
        if isinstance(event, SourceGone):
            self.paths.add(event.path)
        self.events.put_nowait(event)

    async def until(self, wanted: Callable[[Event], bool]) -> Event:
        async with asyncio.timeout(10):
            while not wanted(event := await self.events.get()):
                pass
        return event

    async def seen(self, path: str) -> Source:
        event = await self.until(lambda e: isinstance(e, SourceSeen) and e.source.id.path == path)
        assert isinstance(event, SourceSeen)
        return event.source

    async def gone(self, path: str) -> None:
        await self.until(lambda event: event == SourceGone(path))

    async def first(self, path: str) -> Event:
        return await self.until(
            lambda e: (
                e == SourceGone(path) or (isinstance(e, SourceSeen) and e.source.id.path == path)
            )
        )

    def listed(self, path: str) -> Source | None:
        return next((s for s in self.sources.list_sources() if s.id.path == path), None)


@pytest.fixture
def loop() -> Iterator[Loop]:
    device = Loop()
    yield device
    device.remove()


@pytest.fixture
async def watch() -> AsyncIterator[Watch]:
    watch = Watch(UdevSources())
    watch.sources.start(watch.emit)
    yield watch
    watch.sources.close()


@pytest.fixture(scope="module")
def squashfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("extst-squashfs")
    (directory / "tree").mkdir()
    (directory / "tree/hello").write_text("hello")
    image = directory / "extst.img"
    run("mksquashfs", directory / "tree", image, "-quiet", "-no-progress")
    os.truncate(image, 1 << 20)
    return image


@pytest.fixture(scope="module")
def disk(squashfs: Path) -> Path:
    image = squashfs.with_name("extst-disk.img")
    with image.open("wb") as file:
        file.truncate(8 << 20)
    script = f"label: gpt\nsize=1MiB, name=boot\nsize=1MiB, name=PKGS, type={LINUX}\n"
    run("sfdisk", "-q", "--no-reread", image, script=script)
    with image.open("r+b") as file:
        partition = read_partition(reader(file.fileno()), 2)
        assert partition is not None
        file.seek(partition.first)
        file.write(squashfs.read_bytes())
    return image


async def test_a_medium_is_seen_probed_and_gone(watch: Watch, loop: Loop, squashfs: Path) -> None:
    loop.attach(squashfs)
    source = await watch.seen(loop.node)
    assert source == watch.listed(loop.node)
    assert (source.kind, source.size, source.removable) == (SourceKind.DEVICE, 1 << 20, False)
    assert (source.devno, source.backing_file) == (f"7:{loop.number}", str(squashfs))
    assert source.id.generation == read(f"/sys/block/{loop.name}/diskseq")
    assert refuse_unprobed(source, Filters(), "/persist/store") is None
    superblock = probe_source(source)
    assert superblock.fs_type is FsType.SQUASHFS
    assert refuse_probed(source, superblock, Filters()) is None
    loop.detach()
    await watch.gone(loop.node)
    assert watch.listed(loop.node) is None


async def test_another_medium_in_the_same_place_is_another_source(
    watch: Watch, loop: Loop, squashfs: Path
) -> None:
    loop.attach(squashfs)
    before = await watch.seen(loop.node)
    loop.detach()
    await watch.gone(loop.node)
    loop.attach(squashfs)
    after = await watch.seen(loop.node)
    assert before.id.path == after.id.path
    assert before.id != after.id
    assert probe_source(after).fs_type is FsType.SQUASHFS
    with pytest.raises(ImageRefusedError) as refused:
        probe_source(before)
    assert refused.value.problem.code is Code.GONE


async def test_a_disk_that_somebody_partitions_is_busy(
    watch: Watch, loop: Loop, squashfs: Path
) -> None:
    loop.attach(squashfs)
    source = await watch.seen(loop.node)
    descriptor = os.open(loop.node, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(ImageRefusedError) as refused:
            probe_source(source)
    finally:
        os.close(descriptor)
    assert refused.value.problem.code is Code.BUSY


async def test_a_medium_that_shrinks_while_it_is_open_is_another_one(
    watch: Watch, loop: Loop, squashfs: Path
) -> None:
    loop.attach(squashfs)
    source = await watch.seen(loop.node)
    descriptor = open_source(source)
    try:
        check_source(descriptor, source)
        run("losetup", "-c", loop.node)
        check_source(descriptor, source)
        os.truncate(squashfs, 1 << 19)
        run("losetup", "-c", loop.node)
        with pytest.raises(ImageRefusedError) as refused:
            check_source(descriptor, source)
    finally:
        os.close(descriptor)
        os.truncate(squashfs, 1 << 20)
    assert refused.value.problem.code is Code.GONE


async def test_an_image_that_the_agent_mounted_from_its_store_is_no_source(
    watch: Watch, loop: Loop, squashfs: Path
) -> None:
    loop.attach(squashfs, "-r")
    source = await watch.seen(loop.node)
    assert refuse_unprobed(source, Filters(), str(squashfs.parent)) is not None
    assert refuse_unprobed(source, Filters(), "/persist/store") is None


async def test_a_partition_is_told_by_its_disks_table(watch: Watch, loop: Loop, disk: Path) -> None:
    loop.attach(disk)
    whole = await watch.seen(loop.node)
    assert probe_source(whole) == Superblock(fs_type=FsType.GPT)
    run("partx", "-a", loop.node)
    source = await watch.seen(f"{loop.node}p2")
    assert (source.disk, source.partition, source.size) == (loop.node, 2, 1 << 20)
    assert source.id.generation == f"{whole.id.generation}.2"
    superblock = probe_source(source)
    assert superblock.fs_type is FsType.SQUASHFS
    assert (superblock.partition_label, superblock.partition_type) == ("PKGS", LINUX)
    assert refuse_probed(source, superblock, Filters(labels=("PKGS",))) is None
    assert refuse_probed(source, superblock, Filters(labels=("other",))) is not None
    with pytest.raises(ImageRefusedError) as refused:
        probe_source(replace(source, disk="/dev/null"))
    assert refused.value.problem.code is Code.GONE
    run("partx", "-d", loop.node)
    await watch.gone(f"{loop.node}p2")


async def test_a_partition_that_is_not_in_the_table_gets_no_name_from_it(
    watch: Watch, loop: Loop, disk: Path
) -> None:
    loop.attach(disk)
    run("addpart", loop.node, "2", "2048", "1024")  # half as large as the entry says
    source = await watch.seen(f"{loop.node}p2")
    assert probe_source(source).partition_label == ""
    run("partx", "-d", loop.node)


def test_a_table_on_a_disk_with_large_sectors(loop: Loop, tmp_path: Path) -> None:
    image = tmp_path / "extst-4k.img"
    with image.open("wb") as file:
        file.truncate(8 << 20)
    loop.attach(image, "-b", "4096")
    run("sfdisk", "-q", "--no-reread", loop.node, script="label: gpt\nsize=1MiB, name=PKGS\n")
    with Path(loop.node).open("rb") as file:
        partition = read_partition(reader(file.fileno()), 1)
    assert partition is not None
    assert (partition.label, partition.type, partition.size) == ("PKGS", LINUX, 1 << 20)


async def test_a_whole_disk_that_is_plugged_in_and_out(watch: Watch, squashfs: Path) -> None:
    loop = Loop()
    try:
        await watch.gone(loop.node)  # there, but without a medium
        loop.attach(squashfs)
        await watch.seen(loop.node)
    finally:
        loop.remove()
    await watch.gone(loop.node)
    assert watch.listed(loop.node) is None
    assert f"/dev/7:{loop.number}" not in watch.paths  # its twin in the subsystem "bdi"


@pytest.mark.skipif(not Path("/sys/class/zram-control").exists(), reason="no zram here")
async def test_another_kind_of_disk(watch: Watch) -> None:
    number = read("/sys/class/zram-control/hot_add")
    try:
        write(f"/sys/block/zram{number}/disksize", "1048576")
        source = await watch.seen(f"/dev/zram{number}")
        assert source.size == 1 << 20
        assert probe_source(source).fs_type is FsType.UNKNOWN
    finally:
        write("/sys/class/zram-control/hot_remove", number)
    await watch.gone(f"/dev/zram{number}")


async def test_a_synthetic_event_is_a_second_look(watch: Watch, loop: Loop, squashfs: Path) -> None:
    loop.attach(squashfs)
    source = await watch.seen(loop.node)
    loop.send("change")
    assert await watch.seen(loop.node) == source
    loop.send("add")
    assert await watch.seen(loop.node) == source


async def test_a_false_remove_by_root_hides_a_device_until_the_next_listing(
    watch: Watch, loop: Loop, squashfs: Path
) -> None:
    loop.attach(squashfs)
    source = await watch.seen(loop.node)
    loop.send("remove")
    await watch.gone(loop.node)
    assert watch.listed(loop.node) == source


@pytest.mark.hostile
@pytest.mark.parametrize("group", [0, 1], ids=["unicast", "multicast"])
async def test_h105_an_event_from_a_process_is_dropped(
    watch: Watch, loop: Loop, squashfs: Path, group: int
) -> None:
    loop.attach(squashfs)
    await watch.seen(loop.node)
    for port in [0] if group else netlink_ports():
        send_netlink(forged_removal(loop), port, group)
    loop.send("change")
    assert isinstance(await watch.first(loop.node), SourceSeen)


@pytest.mark.hostile
async def test_h105_the_same_event_relayed_by_the_kernel_for_root_is_taken(
    watch: Watch, loop: Loop, squashfs: Path
) -> None:
    """The forged message has the right form: it is its sender that is refused."""
    loop.attach(squashfs)
    source = await watch.seen(loop.node)
    relay(forged_removal(loop))
    assert await watch.first(loop.node) == SourceGone(loop.node)
    assert watch.listed(loop.node) == source


ODD = "remove@/devices/x\0ACTION=remove\0DEVPATH=/devices/virtual/block/extst\0SUBSYSTEM=block\0"


@pytest.mark.hostile
@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\0",
        b"remove@",
        ODD.encode(),
        ODD.replace("extst", "../../extst").encode() + b"DEVNAME=../../x\0SEQNUM=1\0",
        ODD.replace("extst", "extst\x1b[31m").encode() + b"DEVNAME=x\0SEQNUM=1\0",
        ODD.encode() + b"DEVNAME=/dev/x\0SEQNUM=1",
        ODD.encode() + b"\xff\xfe=\x80\0" * 50 + b"SEQNUM=1\0",
        ODD.encode() + b"X=" + b"y" * 65536 + b"\0SEQNUM=1\0",
        b"libudev\0" + bytes(64),
        b"libudev\0" + struct.pack(">I", 0xFEEDCAFE) + bytes(28),
    ],
    ids=[
        *("empty", "nul", "header-only", "no-devname", "climbing", "escape-sequence"),
        *("no-nul-at-the-end", "binary", "64KiB", "no-magic", "magic-only"),
    ],
)
async def test_h104_a_malformed_event_does_no_harm(
    watch: Watch, loop: Loop, squashfs: Path, message: bytes
) -> None:
    loop.attach(squashfs)
    source = await watch.seen(loop.node)
    relay(message)
    loop.send("change")
    assert await watch.seen(loop.node) == source
    # What could be the removal of a device is taken for one.
    assert {path for path in watch.paths if "extst" in path} <= {"/dev/extst"}


@pytest.mark.hostile
@pytest.mark.parametrize("subsystem", ["input", "net", "block"])
async def test_h098_a_stick_that_is_a_keyboard_as_well_is_a_disk_only(
    watch: Watch, loop: Loop, squashfs: Path, subsystem: str
) -> None:
    loop.attach(squashfs)
    await watch.seen(loop.node)
    relay(ODD.replace("=block", f"={subsystem}").encode() + b"SEQNUM=1\0")
    loop.send("change")
    await watch.seen(loop.node)
    assert ("/dev/extst" in watch.paths) is (subsystem == "block")


def relay(message: bytes) -> None:
    """Root may have the kernel send a message to all who listen (lib/kobject_uevent.c)."""
    send_netlink(struct.pack("=IHHII", 16 + len(message), 16, 1, 1, 0) + message, 0, 0)


def forged_removal(loop: Loop) -> bytes:
    path = f"/devices/virtual/block/{loop.name}"
    lines = [f"remove@{path}", "ACTION=remove", f"DEVPATH={path}", "SUBSYSTEM=block"]
    lines += [f"DEVNAME={loop.node}", "DEVTYPE=disk", "MAJOR=7", f"MINOR={loop.number}"]
    return "\0".join([*lines, "SEQNUM=1", ""]).encode()


def send_netlink(message: bytes, port: int, group: int) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_KOBJECT_UEVENT) as sender:
        sender.sendto(message, (port, group))


def netlink_ports() -> list[int]:
    """The ports of our own listeners; the columns are sk, protocol, port, ..., inode."""
    rows = [line.split() for line in read("/proc/net/netlink").splitlines()[1:]]
    ours = {link.readlink().name for link in Path("/proc/self/fd").glob("*") if link.is_socket()}
    ports = [
        int(row[2])
        for row in rows
        if int(row[1]) == NETLINK_KOBJECT_UEVENT and f"socket:[{row[-1]}]" in ours
    ]
    assert ports
    return ports


async def test_lost_events_are_said_once_and_later_ones_still_come(
    loop: Loop, squashfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = udev.open_monitor

    def with_a_tiny_buffer() -> tuple[pyudev.Monitor, socket.socket]:
        monitor, control = real()
        control.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        return monitor, control

    monkeypatch.setattr(udev, "open_monitor", with_a_tiny_buffer)
    watch = Watch(UdevSources())
    watch.sources.start(watch.emit)
    loop.send("change", times=500)
    await watch.until(lambda event: event == EventsLost("udev"))
    loop.attach(squashfs)
    await watch.seen(loop.node)
    assert watch.events.empty()
    watch.sources.close()


async def test_a_burst_for_one_device_is_one_look_for_each_callback(
    watch: Watch, loop: Loop, squashfs: Path
) -> None:
    loop.attach(squashfs)
    await watch.seen(loop.node)
    loop.send("change", times=3000)
    loop.detach()
    looks = 0
    while not isinstance(await watch.first(loop.node), SourceGone):
        looks += 1
    assert looks <= 3000 // udev.BUDGET + 1
