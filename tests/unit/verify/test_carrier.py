"""Images that lie as files in a vfat: the whole order of trust, on file systems of real tools."""

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from extsloader.model.errors import ImageRefusedError
from extsloader.model.helper import Request
from extsloader.model.reasons import Code
from extsloader.model.source import Filters, FsType, SourceKind
from extsloader.verify.carrier import find_image
from extsloader.verify.medium import open_medium
from extsloader.verify.pipeline import verify
from extsloader.verify.probe import probe_source
from tests.fakes import images

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
def stick(tmp_path: Path, image: Path) -> Path:
    return write_stick(tmp_path / "stick", rootfs_pkgs=image)


def test_a_probe_says_which_image_a_stick_holds(tmp_path: Path, stick: Path) -> None:
    found = probe_source(images.file_source(stick), FILES)
    other = probe_source(images.file_source(write_stick(tmp_path / "other")), FILES)

    assert (found.fs_type, found.label, found.file) == (FsType.VFAT, "STICK", "rootfs-pkgs.img")
    assert (other.fs_type, other.file) == (FsType.VFAT, "")


def test_an_image_in_a_vfat_is_verified_and_kept(stick: Path, image: Path) -> None:
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
    stick: Path, damage: Callable[[bytearray], None]
) -> None:
    data = bytearray(stick.read_bytes())
    damage(data)
    stick.write_bytes(data)

    with pytest.raises(ImageRefusedError, match="its file system is damaged") as caught:
        verify(ask(stick), ignore)

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
