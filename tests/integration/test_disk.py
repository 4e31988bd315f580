"""The verbs that make images and disks, with the real tools, as a user runs them."""

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest

from extsloader.imagebuild.disk.boot_files import extract_kernel
from extsloader.imagebuild.main import main
from extsloader.imagebuild.tree import Kind, Node, Tree, write_tar

TREE: Tree = {
    "boot/cmdline": Node(kind=Kind.FILE, content=b"root=PARTLABEL=IMGA"),
    "boot/initrd.img": Node(kind=Kind.FILE, content=b"initrd" * 1000),
    "boot/kernel": Node(kind=Kind.FILE, content=b"kernel" * 1000),
    "containers/services/web/lower/bin/web": Node(kind=Kind.FILE, content=bytes(3_000_000)),
    "usr/lib/os-release": Node(kind=Kind.FILE, content=b"ID=test\n"),
}
SIZES = ("--size-efi", "8M", "--size-imga", "1M", "--size-persist", "0")


@pytest.fixture(name="tar")
def _tar(tmp_path: Path) -> Path:
    out = BytesIO()
    write_tar(TREE, out)
    (tmp_path / "x.tar").write_bytes(out.getvalue())
    return tmp_path / "x.tar"


def test_a_user_makes_a_disk_that_boots_what_the_tar_holds(tar: Path, tmp_path: Path) -> None:
    image, disk = tmp_path / "x.img", tmp_path / "x.qcow2"
    user = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
    mkext = [*user, sys.executable, "-m", "extsloader.imagebuild.main"]
    subprocess.run([*mkext, "squash", tar, "-o", image], check=True, capture_output=True)
    subprocess.run(
        [*mkext, "disk", tar, "--rootfs", image, "-o", disk, "--cmdline-add", "quiet", *SIZES],
        check=True,
        capture_output=True,
    )

    kernel = extract_kernel(disk, tmp_path)
    assert kernel.cmdline == "root=PARTLABEL=IMGA quiet"
    assert kernel.linux.read_bytes() == TREE["boot/kernel"].content
    assert kernel.initrd.read_bytes() == TREE["boot/initrd.img"].content


def test_an_image_over_the_limit_leaves_nothing_but_what_is_big(
    tar: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for kind in ("squashfs", "erofs"):
        argv = ["squash", str(tar), "-o", "x.img", "--format", kind, "--limit", "1K"]
        assert main(argv) == 1

        said = capsys.readouterr().err
        assert "cannot make x.img: expected at most 1024 bytes, got" in said
        assert "3.0 MB  containers/services/web" in said
        assert [path.name for path in tmp_path.iterdir()] == ["x.tar"]


def test_a_disk_that_cannot_be_whole_is_not_made(
    tar: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "large.img"
    image.write_bytes(bytes((1 << 20) + 1))

    argv = ["disk", str(tar), "--rootfs", str(image), "-o", str(tmp_path / "x.qcow2"), *SIZES]
    assert main(argv) == 1

    assert "partition IMGA: expected at most 1048576 bytes, got 1048577" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["large.img", "x.tar"]


def test_what_is_big_is_said_without_making_anything(
    tar: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["size", str(tar), "--top", "1"]) == 0

    assert capsys.readouterr().out.splitlines() == [
        "     3.0 MB  containers/services/web",
        "     3.0 MB  in all, before compression",
    ]
