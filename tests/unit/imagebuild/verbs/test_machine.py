from pathlib import Path

import pytest

from extsloader.imagebuild.disk.qemu import VVFAT_LIMIT, Via
from extsloader.imagebuild.main import main
from extsloader.imagebuild.verbs.machine import make_source


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "live.qcow2"
    path.touch()
    return path


def test_a_missing_disk_names_the_target_that_makes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(tmp_path / "none.qcow2")]) == 1
    told = capsys.readouterr().err
    assert "none.qcow2: there is no such file" in told
    assert "hint: run `make live-bootstrap`" in told


def test_a_missing_image_names_the_target_that_makes_it(
    disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(disk), "--pkgs", f"{disk}.img"]) == 1
    assert "hint: run `make pkgs_rootfs`" in capsys.readouterr().err


def test_an_image_too_large_for_vvfat_is_refused_before_anything_starts(
    disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "rootfs-pkgs.img"
    with image.open("wb") as file:
        file.truncate(VVFAT_LIMIT)
    assert main(["run", str(disk), "--pkgs", str(image), "--via", "vvfat"]) == 1
    told = capsys.readouterr().err
    assert "it has 504 MiB" in told
    assert "hint: use --via usb" in told


def test_configuration_is_never_written_to_the_disk_itself(
    disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(disk), "--write", "--conf", str(tmp_path)]) == 1
    assert "--conf works on a copy" in capsys.readouterr().err


def test_another_architecture_is_refused(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(disk), "--arch", "arm64"]) == 1
    assert "cannot run an arm64 disk: only amd64" in capsys.readouterr().err


def test_a_missing_qemu_is_named_with_its_package(
    disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["run", str(disk)]) == 1
    assert "apt-get install qemu-system-x86" in capsys.readouterr().err


@pytest.mark.parametrize("via", [Via.VIRTIO, Via.USB])
def test_a_disk_that_is_the_image_needs_no_copy(tmp_path: Path, via: Via) -> None:
    assert make_source(via, tmp_path / "x.img", tmp_path) == tmp_path / "x.img"


def test_a_vvfat_holds_the_image_under_its_usual_name(tmp_path: Path) -> None:
    image = tmp_path / "other-name.img"
    image.write_bytes(b"image")
    folder = make_source(Via.VVFAT, image, tmp_path)
    assert [path.name for path in folder.iterdir()] == ["rootfs-pkgs.img"]
    assert (folder / "rootfs-pkgs.img").read_bytes() == b"image"
