"""Hostile media and what the kernel says about them, up to the point where an image is found."""

import errno
import itertools
import os
import struct
import subprocess
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from extsloader.adapters.udev import read_source
from extsloader.core import candidates, engine
from extsloader.core.admit import refuse_probed, refuse_unprobed
from extsloader.image.fat import list_root
from extsloader.image.files import MAX_DIRECTORY, FileSystemError
from extsloader.image.superblock import read_partition, read_superblock
from extsloader.model import effects as fx
from extsloader.model import events as ev
from extsloader.model.errors import ImageRefusedError
from extsloader.model.events import TimerId, TimerKind
from extsloader.model.helper import Request
from extsloader.model.ids import SourceId
from extsloader.model.reasons import Code, Problem
from extsloader.model.source import Filters, FsType, Superblock
from extsloader.model.world import CandidatePhase
from extsloader.verify.identity import open_source
from extsloader.verify.medium import open_medium
from extsloader.verify.pipeline import verify
from tests.fakes import builders, images
from tests.fakes.real_devices import LoopDevice

pytestmark = pytest.mark.hostile

FILES = ("pkgs.img",)
NOISE = b"".join(number.to_bytes(4) for number in range(1 << 14))


def ignore(_done: int, _total: int) -> None:
    pass


def ask(path: Path) -> Request:
    return Request(
        source=images.file_source(path),
        machine=images.MACHINE,
        files=FILES,
        keys=str(path.parent / "keys"),
        store=images.store_in(path.parent),
        wall=1_800_000_000.0,
        reserve=0,
    )


def refusal(path: Path) -> Code:
    with pytest.raises(ImageRefusedError) as refused:
        verify(ask(path), ignore)
    assert images.names(path.parent / "store") == []
    return refused.value.problem.code


@pytest.fixture
def path(tmp_path: Path) -> Path:
    images.key_directory(tmp_path / "keys", 1)
    return tmp_path / "medium"


def of(data: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, length: data[offset : offset + length]


def place(*parts: tuple[int, bytes], size: int = 1 << 17) -> bytes:
    data = bytearray(size)
    for offset, part in parts:
        data[offset : offset + len(part)] = part
    return bytes(data)


def decide(superblock: Superblock) -> CandidatePhase:
    """Where a stick with such a content stands after its probe; nothing may be ordered for it."""
    source = builders.source()
    probing = candidates.start_helpers(
        candidates.see(builders.world(), source, builders.moment()).world
    ).world
    step = engine.step(probing, ev.Probed(source.id, superblock), builders.moment())
    assert not any(isinstance(effect, fx.Verify | fx.MountImage) for effect in step.effects)
    return step.world.candidates[source.id].phase


# What is on the medium


@pytest.mark.parametrize("size", [0, 1, 95, 96, 512, 4096])
def test_h087_a_medium_that_ends_before_an_image_could(path: Path, size: int) -> None:
    images.signed(path)
    os.truncate(path, size)
    assert refuse_unprobed(builders.source(size=size), Filters(), "/store") is not None
    assert refusal(path) in {Code.FS_TYPE, Code.ENVELOPE}


def gpt(entries: bytes, *, count: int = 128, entry_size: int = 128, bad: int = 0) -> bytes:
    def header(checksum: int) -> bytes:
        return struct.pack(
            "<8s4I4Q16sQ3I", b"EFI PART", 0x10000, 92, checksum, 0, 1, 255, 34, 200, bytes(16), 2,
            count, entry_size, crc32(entries) ^ bad,
        )  # fmt: skip

    return place((512, header(crc32(header(0)))), (1024, entries))


def entry(first: int, last: int) -> bytes:
    return struct.pack("<16s16sQQ8x72s", b"t" * 16, b"u" * 16, first, last, "x".encode("utf-16-le"))


TABLE = (entry(40, 99) + entry(60, 120) + entry(1 << 40, (1 << 40) + 7)).ljust(128 * 128, b"\0")


@pytest.mark.parametrize(
    ("disk", "names"),
    [
        (gpt(TABLE), 3),
        (gpt(TABLE, bad=1), 0),
        (gpt(TABLE, entry_size=1 << 31), 0),
        (gpt(TABLE, entry_size=64), 0),
        (gpt(TABLE, count=1 << 31), 0),
    ],
    ids=["overlaps", "bad-crc", "entry-size-2GiB", "entry-size-64", "2G-entries"],
)
def test_h088_a_partition_table_gives_names_and_nothing_else(disk: bytes, names: int) -> None:
    """Which partitions there are is the kernel's say; where they overlap, each is judged alone."""
    found = [read_partition(of(disk), number) for number in (1, 2, 3)]
    assert sum(partition is not None for partition in found) == names
    assert read_superblock(of(disk)).fs_type is (FsType.GPT if names else FsType.UNKNOWN)


def fat(folder: Path, bits: int = 16, **files: bytes) -> bytearray:
    stick = folder / "stick.vfat"
    with stick.open("wb") as file:
        file.truncate((40 if bits == 32 else 16) << 20)
    argv = ["mkfs.vfat", "-F", str(bits), "-s", "1", "-n", "STICK", str(stick)]
    subprocess.run(argv, check=True, capture_output=True)
    for name, content in files.items():
        target = f"::{name.replace('_', '.')}"
        subprocess.run(["mcopy", "-i", str(stick), "-", target], input=content, check=True)
    return bytearray(stick.read_bytes())


def test_h089_a_medium_that_is_two_file_systems_is_none(path: Path) -> None:
    """Otherwise the one that a filter saw need not be the one that is read later."""
    images.signed(path)
    boot = fat(path.parent)[:512]
    hybrid = bytearray(path.read_bytes())
    hybrid[96:512] = boot[96:]
    hybrid[510:512] = b"\x55\xaa"
    hybrid[54:62] = b"FAT16   "
    assert read_superblock(of(bytes(hybrid))).fs_type is FsType.UNKNOWN
    path.write_bytes(hybrid)
    assert refusal(path) is Code.FS_TYPE


FOREIGN = [
    ("h090-luks", (0, b"LUKS\xba\xbe\x00\x02")),
    ("h090-lvm", (512, b"LABELONE" + bytes(16) + b"LVM2 001")),
    ("h090-md", (4096, bytes.fromhex("fc4e2ba9"))),
    ("h090-bcache", (4096 + 24, bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81"))),
    ("h090-zfs", (128 << 10, struct.pack("<Q", 0x00BAB10C))),
    ("h090-swap", (4086, b"SWAPSPACE2")),
    ("h094-btrfs", (65536 + 64, b"_BHRfS_M")),
    ("h094-xfs", (0, b"XFSB")),
    ("h094-f2fs", (1024, bytes.fromhex("1020f5f2"))),
    ("h094-iso9660", (32769, b"CD001")),
    ("h094-udf", (32769, b"BEA01")),
    ("h094-hfs", (1024, b"H+")),
    ("h092-exfat", (3, b"EXFAT   ")),
    ("h094-ntfs", (3, b"NTFS    ")),
]


@pytest.mark.parametrize("mark", [row[1] for row in FOREIGN], ids=[row[0] for row in FOREIGN])
def test_what_is_not_ours_is_left_alone_and_never_verified(
    path: Path, mark: tuple[int, bytes]
) -> None:
    path.write_bytes(place(mark, (510, b"\x55\xaa"), size=256 << 10))
    superblock = read_superblock(of(path.read_bytes()))
    problem = refuse_probed(builders.source(), superblock, Filters())
    assert problem is not None
    assert problem.code is Code.FS_TYPE
    assert decide(superblock) is CandidatePhase.IGNORED
    assert refusal(path) is Code.FS_TYPE


# FAT


def loop_in_chain(data: bytearray) -> None:
    table, _ = tables(data)
    struct.pack_into("<HHH", data, table + 4, 3, 2, 0xFFFF)


def cross_link(data: bytearray) -> None:
    table, _ = tables(data)
    struct.pack_into("<H", data, table + 2 * 3, 2)


def no_sector(data: bytearray) -> None:
    struct.pack_into("<H", data, 11, 0)


def more_clusters_than_bits(data: bytearray) -> None:
    struct.pack_into("<HI", data, 19, 0, data[21])
    struct.pack_into("<I", data, 32, (1 << 32) - 1)


def cluster_of_nothing(data: bytearray) -> None:
    _, root = tables(data)
    struct.pack_into("<H", data, data.index(b"PKGS    IMG", root) + 26, 0xFFF0)


def tables(data: bytearray) -> tuple[int, int]:
    """Where the allocation table and the root directory of a FAT16 begin."""
    reserved, copies, size = struct.unpack_from("<HB5xH", data, 14)
    return reserved * 512, (reserved + copies * size) * 512


@pytest.mark.parametrize(
    "damage",
    [loop_in_chain, cross_link, no_sector, more_clusters_than_bits, cluster_of_nothing],
)
def test_h091_a_fat_that_leads_in_circles_is_damaged(
    path: Path, damage: Callable[[bytearray], None]
) -> None:
    data = fat(path.parent, pkgs_img=NOISE)
    damage(data)
    path.write_bytes(data)
    assert refusal(path) in {Code.LAYOUT, Code.FS_TYPE}


def test_h091_without_a_bound_a_loop_would_be_read_for_ever(tmp_path: Path) -> None:
    data = fat(tmp_path, pkgs_img=NOISE)
    loop_in_chain(data)
    table, _ = tables(data)
    cluster, steps = 2, 0
    while cluster < 0xFFF8 and steps < 10_000:
        (cluster,) = struct.unpack_from("<H", data, table + 2 * cluster)
        steps += 1
    assert steps == 10_000


def test_h091_a_root_directory_of_more_entries_than_there_can_be(tmp_path: Path) -> None:
    """Of FAT32, whose root directory is a chain: one cluster after the other, full, in a circle."""
    data = fat(tmp_path, 32, pkgs_img=NOISE)
    reserved, copies, size = struct.unpack_from("<HB19xI", data, 14)
    root = (reserved + copies * size) * 512
    data[root : root + 512] = b"\xe5".ljust(32, b"x") * 16
    struct.pack_into("<I", data, reserved * 512 + 4 * 2, 2)
    read = 0

    def counted(offset: int, length: int) -> bytes:
        nonlocal read
        read += length
        return bytes(data[offset : offset + length])

    with pytest.raises(FileSystemError):
        list_root(counted, len(data), FILES)
    assert read < 2 * MAX_DIRECTORY


def test_h091_a_long_name_with_a_wrong_checksum_is_no_name(tmp_path: Path) -> None:
    data = fat(tmp_path, Some_quite_long_name=NOISE)
    _, root = tables(data)
    long = next(at for at in range(root, root + 512, 32) if data[at + 11] == 0x0F)
    data[long + 13] ^= 1
    assert list_root(of(bytes(data)), len(data), ("some.quite.long.name",)).file is None
    data[long + 13] ^= 1
    assert list_root(of(bytes(data)), len(data), ("some.quite.long.name",)).file is not None


def test_h091_two_files_of_one_name_are_one(tmp_path: Path) -> None:
    """The first one counts, as for the kernel; which of them was signed is asked later."""
    data = fat(tmp_path, pkgs_img=NOISE, qkgs_img=b"evil")
    _, root = tables(data)
    data[data.index(b"QKGS    IMG", root)] = ord("P")
    file = list_root(of(bytes(data)), len(data), FILES).file
    assert file is not None
    assert file.size == len(NOISE)


@pytest.mark.parametrize("label", [b"../../etc\0\0", b"a/b        ", b"\xff\xfe\x1b[31m    "])
def test_h091_a_label_is_text_to_be_shown_and_no_path(tmp_path: Path, label: bytes) -> None:
    data = fat(tmp_path, pkgs_img=NOISE)
    at = data.index(b"STICK      ", tables(data)[1])
    data[at : at + 11] = label
    found = list_root(of(bytes(data)), len(data), FILES)
    assert found.file is not None
    superblock = Superblock(fs_type=FsType.VFAT, label=found.label, file="pkgs.img")
    wanted = Filters(labels=("STICK",))
    problem = refuse_probed(builders.source(), superblock, wanted)
    assert problem is not None
    assert problem.code is Code.FILTER
    assert problem.message.isprintable()
    assert "\x1b" not in problem.message


# What the kernel says


@pytest.mark.parametrize(
    "name",
    ["dm-0", "ram0", "zram0", "sr0", "nbd0", "nbd15p1", "rbd0", "drbd1", "fd0"],
)
def test_h101_what_is_no_medium_is_not_read(name: str) -> None:
    source = builders.source(f"/dev/{name}")
    problem = refuse_unprobed(source, Filters(devices=("/dev/*",)), "/persist/store")
    assert problem is not None
    assert problem.code is Code.FILTER


@pytest.mark.parametrize(
    "fields",
    [
        {"partitioned": True},  # the boot disk
        {"partition": 9, "partition_label": "P3"},  # EVE's /persist
        {"partition": 2, "partition_label": "IMGA"},  # the root file system
        {"backing_file": "/persist/store/x.img"},
        {"backing_file": "/persist/store/x.img (deleted)"},
    ],
    ids=lambda fields: ",".join(map(str, fields.values())),
)
def test_h101_the_devices_own_disk_is_not_read(fields: dict[str, Any]) -> None:
    problem = refuse_unprobed(builders.source("/dev/loop7", **fields), Filters(), "/persist/store")
    assert problem is not None
    assert problem.code is Code.FILTER


@pytest.mark.parametrize("name", ["sda", "sdb1", "nvme0n1p3", "vda", "mmcblk0p1", "loop0", "md0"])
def test_h101_disks_and_sticks_are_media(name: str) -> None:
    assert refuse_unprobed(builders.source(f"/dev/{name}"), Filters(), "/persist/store") is None


def test_h100_a_node_that_became_a_link_or_a_file(tmp_path: Path) -> None:
    node = tmp_path / "sdb"
    (tmp_path / "secret").write_text("secret")
    node.symlink_to("secret")
    source = builders.source(str(node))
    with pytest.raises(ImageRefusedError) as refused:
        open_source(source)
    assert refused.value.problem.code is Code.PATH
    assert node.read_text() == "secret"  # by plain open

    node.unlink()
    node.write_bytes(bytes(source.size))
    with pytest.raises(ImageRefusedError) as refused:
        open_source(source)
    assert refused.value.problem.code is Code.GONE


def test_h096_a_file_that_is_replaced_after_it_was_opened(path: Path) -> None:
    images.signed(path)
    good = path.read_bytes()
    with open_medium(images.file_source(path)) as medium:
        path.with_name("other").write_bytes(bytes(len(good)))
        path.with_name("other").rename(path)
        assert path.read_bytes() != good  # whoever opens the path again is fooled
        assert medium.read(0, len(good)) == good
        with pytest.raises(ImageRefusedError) as refused:
            medium.check()
    assert refused.value.problem.code is Code.GONE


def test_h102_a_medium_that_is_written_to_after_its_verification(path: Path) -> None:
    """Whatever the device says of being read-only: what is kept is a copy."""
    manifest = images.signed(path)
    stored, descriptor = verify(ask(path), ignore)
    os.close(descriptor)
    path.write_bytes(bytes(path.stat().st_size))
    with Path(stored.path).open("rb") as file:
        kept = file.read(manifest.image.size)
    assert sha256(kept).hexdigest() == manifest.image.digest


class Storm:
    """The real decisions on 200 events a second; each helper says no at once."""

    def __init__(self) -> None:
        self.world = builders.world()
        self.looks: list[SourceId] = []

    def tell(self, event: ev.Event, now: float) -> None:
        step = engine.step(self.world, event, builders.moment(now))
        self.world = step.world
        for effect in step.effects:
            if isinstance(effect, fx.Probe):
                self.looks.append(effect.source.id)
                no = Problem(Code.FS_TYPE, "cannot use it: no squashfs")
                self.tell(ev.Refused(effect.source.id, no), now)


def test_h103_a_medium_is_looked_at_once_however_often_it_is_reported() -> None:
    storm = Storm()
    for number in range(200 * 10):
        storm.tell(ev.SourceSeen(builders.source()), number / 200)
    assert storm.looks == [builders.source().id]


def changed(number: int) -> list[ev.Event]:
    return [ev.SourceSeen(builders.source(generation=f"{number}"))]


def grown(number: int) -> list[ev.Event]:
    return [ev.SourceSeen(builders.source(size=builders.MIB + number))]


def loose(_number: int) -> list[ev.Event]:
    return [ev.SourceGone("/dev/sdb"), ev.SourceSeen(builders.source())]


@pytest.mark.parametrize("events", [changed, grown, loose])
def test_h103_a_medium_that_changes_all_the_time_is_looked_at_a_few_times(
    events: Callable[[int], list[ev.Event]],
) -> None:
    storm = Storm()
    for number in range(200 * 10):
        for event in events(number):
            storm.tell(event, number / 200)
    assert len(storm.looks) == candidates.LOOKS
    (present,) = [c for c in storm.world.candidates.values() if c.present]
    storm.tell(ev.TimerFired(TimerId(TimerKind.RETRY, present.source.id)), 60.0)
    assert len(storm.looks) == candidates.LOOKS + 1  # it gets its chance when it is calm


def test_h103_without_the_limit_each_event_costs_a_helper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "LOOKS", 1000)
    storm = Storm()
    for number in range(200):
        storm.tell(changed(number)[0], number / 200)
    assert len(storm.looks) == 200


@pytest.mark.parametrize("error", [errno.ENOENT, errno.ENODEV, errno.EINVAL])
@pytest.mark.parametrize("after", range(4))
def test_h106_a_device_that_vanishes_between_two_reads_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int, after: int
) -> None:
    disk = sysfs_disk(tmp_path, "2048")
    assert read_source(*disk) is not None
    answers, real = itertools.count(), os.read

    def read(descriptor: int, length: int) -> bytes:
        if next(answers) >= after:
            raise OSError(error, os.strerror(error))
        return real(descriptor, length)

    monkeypatch.setattr(os, "read", read)
    assert read_source(*disk) is None


@pytest.mark.parametrize("sectors", ["", "x", "0"])
def test_h106_a_size_that_is_none_is_no_medium(tmp_path: Path, sectors: str) -> None:
    assert read_source(*sysfs_disk(tmp_path, sectors)) is None


def sysfs_disk(root: Path, sectors: str) -> tuple[str, str]:
    disk = root / "sdb"
    disk.mkdir()
    for name, text in {"dev": "8:16", "diskseq": "9", "size": sectors, "removable": "1"}.items():
        (disk / name).write_text(f"{text}\n")
    return str(root), "sdb"


@pytest.mark.root
def test_h107_a_size_that_the_device_does_not_have(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(bytes(1 << 20))
    device = LoopDevice()
    try:
        device.plug_in(tmp_path / "image")
        source = read_source("/sys/class/block", Path(device.node).name)
        assert source is not None
        os.close(open_source(source))
        for size in (0, source.size - 512, source.size + 512):
            with pytest.raises(ImageRefusedError) as refused:
                open_source(replace(source, size=size))
            assert refused.value.problem.code is Code.GONE  # the next listing has the new size
    finally:
        device.remove()
