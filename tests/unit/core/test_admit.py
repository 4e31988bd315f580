"""Which sources are looked into, and which are worth verifying."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extsloader.core.admit import refuse_probed, refuse_unprobed, show
from extsloader.model.ids import SourceId
from extsloader.model.reasons import Code, Problem
from extsloader.model.source import Filters, FsType, Source, SourceKind, Superblock

STORE = "/persist/extsloader/store"
STICK = Source(
    id=SourceId("/dev/sdb1", "7.1"),
    kind=SourceKind.DEVICE,
    size=1 << 30,
    removable=True,
    devno="8:17",
    disk="/dev/sdb",
    partition=1,
)
DISK = replace(STICK, id=SourceId("/dev/vda", "1"), removable=False)
FILE = Source(id=SourceId("/persist/ext-imga.img", "1-2-3"), kind=SourceKind.FILE, size=1 << 20)
STORED = replace(FILE, id=SourceId(f"{STORE}/{'a' * 64}.img", "1-2-3"), kind=SourceKind.STORED)
LOOP = replace(DISK, id=SourceId("/dev/loop0", "9"))
IMAGE = Superblock(
    fs_type=FsType.SQUASHFS,
    partition_label="PKGS",
    partition_type="0FC63DAF-8483-4772-8E79-3D69D8477DE4",
)


VFAT = Superblock(fs_type=FsType.VFAT, label="STICK", file="rootfs-pkgs.img")


def unprobed(source: Source, filters: Filters = Filters()) -> Problem | None:  # noqa: B008 - frozen
    return refuse_unprobed(source, filters, STORE)


@pytest.mark.parametrize("source", [STICK, DISK, FILE, STORED, LOOP])
def test_without_configured_filters_everything_with_a_size_is_probed(source: Source) -> None:
    assert unprobed(source) is None
    assert unprobed(replace(source, size=0)) == Problem(
        Code.FILTER,
        f"cannot use {source.id.path}: expected a medium, got an empty one",
        "plug in a medium",
    )


@pytest.mark.parametrize(
    ("source", "filters", "message"),
    [
        (
            replace(STICK, size=8191),
            Filters(),
            "cannot use /dev/sdb1: expected between 8192 and 17592186044416 bytes, got 8191",
        ),
        (
            FILE,
            Filters(max_size=1000),
            "cannot use /persist/ext-imga.img: expected between 8192 and 1000 bytes, got 1048576",
        ),
        (
            STICK,
            Filters(removable=False),
            "cannot use /dev/sdb1: expected a fixed one, got a removable device",
        ),
        (
            DISK,
            Filters(removable=True),
            "cannot use /dev/vda: expected a removable device, got a fixed one",
        ),
        (
            DISK,
            Filters(devices=("/dev/sd*", "/dev/nvme*")),
            "cannot use /dev/vda: expected /dev/sd* or /dev/nvme*, got /dev/vda",
        ),
    ],
)
def test_a_refusal_before_the_probe_says_expected_and_got(
    source: Source, filters: Filters, message: str
) -> None:
    problem = unprobed(source, filters)
    assert problem is not None
    assert (problem.code, problem.message) == (Code.FILTER, message)


@pytest.mark.parametrize(
    ("source", "filters"),
    [
        (replace(STICK, size=8192), Filters()),
        (replace(STICK, size=16 << 40), Filters()),
        (STICK, Filters(removable=True)),
        (DISK, Filters(removable=False)),
        (STICK, Filters(devices=("/dev/vd*", "/dev/sd[ab]?"))),
        (FILE, Filters(devices=("/dev/sd*",), removable=True)),
        (STORED, Filters(max_size=1, devices=("/dev/sd*",), removable=True)),
    ],
)
def test_what_the_filters_let_through(source: Source, filters: Filters) -> None:
    assert unprobed(source, filters) is None


def test_device_patterns_match_case_exactly() -> None:
    assert unprobed(STICK, Filters(devices=("/dev/SD*",))) is not None


@pytest.mark.parametrize("store", [STORE, STORE + "/"])
@pytest.mark.parametrize("suffix", ["", " (deleted)"])
def test_our_own_mounted_images_are_no_new_sources(store: str, suffix: str) -> None:
    ours = replace(LOOP, backing_file=STORED.id.path + suffix)
    problem = refuse_unprobed(ours, Filters(), store)
    assert problem is not None
    assert "the agent's own store" in problem.message


@pytest.mark.parametrize("path", ["/home/disk.img", STORE + "-old/x.img", "/elsewhere" + STORE])
def test_other_loop_devices_are_sources(path: str) -> None:
    assert unprobed(replace(LOOP, backing_file=path)) is None


@pytest.mark.parametrize(
    ("fs_type", "got"),
    [
        (FsType.EXFAT, "exfat"),
        (FsType.NTFS, "ntfs"),
        (FsType.GPT, "a partition table"),
        (FsType.UNKNOWN, "nothing known"),
    ],
)
@pytest.mark.parametrize("source", [STICK, FILE, STORED])
def test_other_file_systems_are_left_alone(fs_type: FsType, got: str, source: Source) -> None:
    problem = refuse_probed(source, Superblock(fs_type=fs_type), Filters())
    assert problem is not None
    assert problem.code is Code.FS_TYPE
    assert problem.message.endswith(f"expected squashfs or vfat or ext4, got {got}")


def test_fewer_file_systems_may_be_wanted() -> None:
    filters = Filters(fs_types=(FsType.SQUASHFS,))
    assert refuse_probed(STICK, IMAGE, filters) is None
    problem = refuse_probed(STICK, VFAT, filters)
    assert problem is not None
    assert problem.message == "cannot use /dev/sdb1: expected squashfs, got vfat"


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        (Filters(labels=("EVE",)), 'expected label "EVE", got "PKGS"'),
        (Filters(labels=("EVE", "pkgs")), 'expected label "EVE" or "pkgs", got "PKGS"'),
        (Filters(partition_labels=("X",)), 'expected partition label "X", got "PKGS"'),
        (
            Filters(partition_types=("C12A",)),
            f'expected partition type "C12A", got "{IMAGE.partition_type}"',
        ),
    ],
)
def test_a_refusal_after_the_probe_says_expected_and_got(filters: Filters, message: str) -> None:
    problem = refuse_probed(STICK, IMAGE, filters)
    assert problem is not None
    assert problem.code is Code.FILTER
    assert problem.message == f"cannot use /dev/sdb1: {message}"
    assert refuse_probed(FILE, IMAGE, filters) is None  # a file has no partition


def test_labels_and_types_that_match_let_an_image_through() -> None:
    filters = Filters(
        labels=("PKGS",),
        partition_labels=("PKGS",),
        partition_types=("0fc63daf-8483-4772-8e79-3d69d8477de4",),
    )
    assert refuse_probed(STICK, IMAGE, filters) is None


def test_a_missing_label_is_said() -> None:
    bare = Superblock(fs_type=FsType.SQUASHFS)
    problem = refuse_probed(STICK, bare, Filters(labels=("PKGS",)))
    assert problem is not None
    assert problem.message.endswith('expected label "PKGS", got none')


def test_a_hostile_label_is_shown_escaped() -> None:
    hostile = replace(IMAGE, partition_label="\x1b[2J\u202epkgs\n%n")
    problem = refuse_probed(STICK, hostile, Filters(labels=("PKGS",)))
    assert problem is not None
    assert problem.message.endswith(r'got "\x1b[2J\u202epkgs\n%n"')


@given(st.text(st.characters(codec=None), max_size=300))
def test_whatever_the_name_it_is_shown_short_and_printable(name: str) -> None:
    shown = show(name)
    assert shown.isprintable()
    assert len(shown) <= 80
    assert (shown == name) == (name.isprintable() and len(name) <= 80)


@given(
    st.builds(
        Superblock, fs_type=st.sampled_from(FsType), label=st.text(), partition_label=st.text()
    ),
    st.sampled_from([STICK, FILE, STORED]),
)
def test_without_filters_on_names_only_the_file_system_counts(
    superblock: Superblock, source: Source
) -> None:
    refused = refuse_probed(source, superblock, Filters()) is not None
    assert refused == (superblock.fs_type is not FsType.SQUASHFS)


@pytest.mark.parametrize("fs_type", [FsType.VFAT, FsType.EXT])
def test_a_carrier_with_an_image_is_verified_and_any_other_stick_is_left_alone(
    fs_type: FsType,
) -> None:
    filters = Filters(files=("a.img", "b.img"))
    stick = replace(VFAT, fs_type=fs_type)

    assert refuse_probed(STICK, stick, filters) is None
    assert refuse_probed(STICK, replace(stick, file=""), filters) == Problem(
        Code.FILTER,
        "cannot use /dev/sdb1: expected a.img or b.img, got other files only",
        "the configured filter files decides this",
    )
    nothing = refuse_probed(STICK, replace(stick, file=""), replace(filters, files=()))
    assert nothing
    assert nothing.message.endswith(
        "expected the image itself, got a file system in which no file is looked for"
    )
    wrong_label = refuse_probed(STICK, stick, Filters(labels=("EVE",)))
    assert wrong_label is not None
    assert '"STICK"' in wrong_label.message


def test_a_stick_that_was_not_unmounted_may_hold_more_than_is_seen() -> None:
    pulled = Superblock(fs_type=FsType.EXT, unclean=True)

    assert refuse_probed(STICK, pulled, Filters(files=("a.img",))) == Problem(
        Code.FILTER,
        "cannot use /dev/sdb1: expected a.img, "
        "got other files only, in a file system that was not unmounted",
        "unmount it where it was written: no journal is replayed",
    )


def test_a_disk_with_partitions_is_not_read_nor_are_the_devices_own_partitions() -> None:
    disk = unprobed(replace(DISK, partitioned=True))
    own = unprobed(replace(STICK, partition_label="P3"))

    assert disk is not None
    assert disk.message == "cannot use /dev/vda: expected a medium, got a disk with partitions"
    assert own is not None
    assert own.message == 'cannot use /dev/sdb1: expected another partition label, got "P3"'
    assert unprobed(replace(STICK, partition_label="PKGS")) is None


def test_the_partitions_of_the_device_itself_are_left_alone() -> None:
    own = replace(IMAGE, partition_label="IMGB")

    assert refuse_probed(STICK, own, Filters(ignored_partition_labels=())) is None
    problem = refuse_probed(STICK, own, Filters())
    assert problem is not None
    assert problem.message == 'cannot use /dev/sdb1: expected another partition label, got "IMGB"'
