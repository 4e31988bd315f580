"""Images that lie as files in a carrier: the whole order of trust, on real ones."""

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from extsloader.core.admit import refuse_probed
from extsloader.model.errors import ImageRefusedError
from extsloader.model.helper import Request
from extsloader.model.reasons import Code
from extsloader.model.source import Filters, FsType, SourceKind
from extsloader.verify.carrier import find_image
from extsloader.verify.medium import open_medium
from extsloader.verify.pipeline import verify
from extsloader.verify.probe import probe_source
from tests.fakes import ext4, images

FILES = Filters().files


def ignore(_done: int, _total: int) -> None:
    pass


def write_stick(stick: Path, **files: Path) -> Path:
    with stick.open("wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkfs.vfat", "-n", "STICK", str(stick)], check=True, capture_output=True)
    for name, path in files.items():
        target = f"::{name.replace('_', '-')}.img"
        subprocess.run(["mcopy", "-i", str(stick), str(path), target], check=True)
    return stick


def write_ext4(stick: Path, image: Path) -> Path:
    ext4.make(stick, "-L", "STICK")
    ext4.change(stick, f"write {image} rootfs-pkgs.img")
    return stick


def ask(stick: Path, **changes: object) -> Request:
    asked = Request(
        source=images.file_source(stick),
        files=FILES,
        machine=images.MACHINE,
        keys=str(stick.parent / "keys"),
        store=images.store_in(stick.parent),
        wall=1_800_000_000.0,
        reserve=0,
    )
    return replace(asked, **changes)  # type: ignore[arg-type]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    images.key_directory(tmp_path / "keys", 1)
    images.signed(tmp_path / "image")
    return tmp_path / "image"


@pytest.fixture
def fat(tmp_path: Path, image: Path) -> Path:
    return write_stick(tmp_path / "stick", rootfs_pkgs=image)


@pytest.fixture(params=[FsType.VFAT, FsType.EXT])
def fs_type(request: pytest.FixtureRequest) -> FsType:
    return FsType(request.param)


@pytest.fixture
def stick(tmp_path: Path, image: Path, fs_type: FsType) -> Path:
    if fs_type is FsType.EXT:
        return write_ext4(tmp_path / "stick", image)
    return write_stick(tmp_path / "stick", rootfs_pkgs=image)


def test_a_probe_says_which_image_a_stick_holds(
    tmp_path: Path, stick: Path, fs_type: FsType
) -> None:
    found = probe_source(images.file_source(stick), FILES)
    other = probe_source(images.file_source(write_stick(tmp_path / "other")), FILES)

    assert (found.fs_type, found.label, found.file) == (fs_type, "STICK", "rootfs-pkgs.img")
    assert (other.fs_type, other.file) == (FsType.VFAT, "")


def test_an_image_in_a_carrier_is_verified_and_kept(stick: Path, image: Path) -> None:
    stored, descriptor = verify(ask(stick), ignore)

    assert os.pread(descriptor, 1 << 20, 0) == image.read_bytes()
    assert stored.path.startswith(f"{stick.parent}/store/")
    os.close(descriptor)


def test_the_medium_ends_where_the_file_does(stick: Path, image: Path) -> None:
    size = image.stat().st_size
    with open_medium(images.file_source(stick)) as medium:
        found = find_image(medium, FILES)
        assert found.size == size
        assert found.read(size - 10, 100) == image.read_bytes()[-10:]
        assert found.read(size + 4096, 100) == b""


def test_an_image_that_is_the_medium_is_no_file_in_it(image: Path) -> None:
    for asked in (FILES, ()):
        with open_medium(images.file_source(image)) as medium:
            assert find_image(medium, asked) is medium


def test_only_the_damage_of_a_file_system_is_called_damage(stick: Path) -> None:
    with stick.open("r+b") as file:
        file.truncate(1 << 20)
    with pytest.raises(ImageRefusedError) as caught:
        probe_source(images.file_source(stick), FILES)
    assert caught.value.problem.code is Code.LAYOUT
    assert "its file system is damaged: " in caught.value.problem.message


def test_a_flipped_bit_is_found(stick: Path, image: Path) -> None:
    data = bytearray(stick.read_bytes())
    place = data.find(image.read_bytes()[:4096])
    data[place + 5000] ^= 1
    stick.write_bytes(data)

    with pytest.raises(ImageRefusedError, match=Code.DIGEST):
        verify(ask(stick), ignore)


def cut_table(data: bytearray) -> None:
    reserved = int.from_bytes(data[14:16], "little") * 512
    data[reserved + 4 : reserved + 512] = bytes(508)


def shrink_medium(data: bytearray) -> None:
    del data[-4096:]


@pytest.mark.parametrize("damage", [cut_table, shrink_medium])
def test_a_damaged_file_system_is_refused_by_name(
    fat: Path, damage: Callable[[bytearray], None]
) -> None:
    data = bytearray(fat.read_bytes())
    damage(data)
    fat.write_bytes(data)

    with pytest.raises(ImageRefusedError, match="its file system is damaged") as caught:
        verify(ask(fat), ignore)

    assert caught.value.problem.code is Code.LAYOUT


def test_our_own_store_holds_images_and_nothing_that_holds_one(stick: Path) -> None:
    """Otherwise a file would be hashed in parts, and mounted as a whole."""
    stored, descriptor = verify(ask(stick), ignore)
    os.close(descriptor)
    path = Path(stored.path)
    path.unlink()
    path.write_bytes(stick.read_bytes())
    source = images.file_source(path, SourceKind.STORED)

    with pytest.raises(ImageRefusedError) as caught:
        verify(ask(stick, source=source), ignore)

    assert caught.value.problem.code is Code.FS_TYPE


def test_an_empty_file_and_no_file_are_told_apart(tmp_path: Path, image: Path) -> None:
    (tmp_path / "nothing").write_bytes(b"")
    empty = write_stick(tmp_path / "empty", pkgs=tmp_path / "nothing")
    other = write_stick(tmp_path / "other", holiday=image)

    with pytest.raises(ImageRefusedError, match=r"pkgs\.img is empty"):
        verify(ask(empty), ignore)
    with pytest.raises(ImageRefusedError, match=r"it holds no rootfs-pkgs\.img or"):
        verify(ask(other), ignore)


def test_h093_a_journal_is_not_replayed_and_what_is_there_is_read(
    tmp_path: Path, image: Path
) -> None:
    stick = write_ext4(tmp_path / "stick", image)
    ext4.change(stick, "feature needs_recovery")
    before = stick.read_bytes()

    found = probe_source(images.file_source(stick), FILES)
    _, descriptor = verify(ask(stick), ignore)
    os.close(descriptor)

    assert (found.file, found.unclean) == ("rootfs-pkgs.img", True)
    assert stick.read_bytes() == before


def test_h093_features_that_nobody_here_knows_are_a_type_of_their_own(tmp_path: Path) -> None:
    stick = ext4.make(tmp_path / "stick", "-O", "encrypt")

    with pytest.raises(ImageRefusedError, match="its features 0x10000 are not known") as caught:
        probe_source(images.file_source(stick), FILES)

    assert caught.value.problem.code is Code.FS_TYPE
    assert caught.value.problem.hint == "make the file system anew with mkfs.ext4 or mkfs.vfat"


def test_h095_a_link_in_a_carrier_is_refused_and_not_followed(tmp_path: Path) -> None:
    stick = ext4.make(tmp_path / "stick")
    ext4.change(stick, "symlink pkgs.img /etc/shadow")

    with pytest.raises(ImageRefusedError, match=r"pkgs\.img is no regular file") as caught:
        probe_source(images.file_source(stick), FILES)

    assert caught.value.problem.code is Code.PATH


OTHERS = {
    "btrfs": (65536 + 64, b"_BHRfS_M"),
    "xfs": (0, b"XFSB"),
    "f2fs": (1024, b"\x10\x20\xf5\xf2"),
    "ntfs": (3, b"NTFS    "),
    "iso9660": (32769, b"CD001"),
    "udf": (32769, b"BEA01"),
    "hfs+": (1024, b"H+"),
}


@pytest.mark.parametrize(("at", "magic"), OTHERS.values(), ids=OTHERS.keys())
def test_h094_other_file_systems_are_refused_by_type(tmp_path: Path, at: int, magic: bytes) -> None:
    stick = tmp_path / "stick"
    data = bytearray(1 << 20)
    data[at : at + len(magic)] = magic
    data[510:512] = b"\x55\xaa"
    stick.write_bytes(data)
    source = images.file_source(stick)

    problem = refuse_probed(source, probe_source(source, FILES), Filters())

    assert problem is not None
    assert problem.code is Code.FS_TYPE
