"""Images are made by mksquashfs and read by unsquashfs."""

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest

from extsloader.imagebuild.squashfs import DEFAULT, Compression, squash_tar
from extsloader.imagebuild.tree import Kind, Node, Tree, write_tar

CAPABLE = {"security.capability": "\x01\0\0\x02\0 \0\0\0\0\0\0\0\0\0\0\0\0\0\0"}  # cap_net_raw=ep
TREE: Tree = {
    "bin/ping": Node(kind=Kind.FILE, content=b"ping" * 1000, xattrs=CAPABLE),
    "dev/null": Node(kind=Kind.CHARACTER, mode=0o666, device=(1, 3)),
    "home/user": Node(kind=Kind.DIRECTORY, mode=0o700, uid=1000, gid=1000),
}


@pytest.fixture(name="tar")
def _tar(tmp_path: Path) -> Path:
    out = BytesIO()
    write_tar(TREE, out)
    (tmp_path / "x.tar").write_bytes(out.getvalue())
    return tmp_path / "x.tar"


def unsquash(*options: str | Path) -> str:
    return subprocess.run(
        ["unsquashfs", *options], check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.parametrize(
    ("compression", "said"),
    [
        (DEFAULT, ("Compression zstd", "Block size 131072")),
        (
            Compression(kind="xz", filters="x86,arm"),
            ("Compression xz", "Filters selected: x86, arm"),
        ),
        (Compression(block=1 << 20), ("Compression zstd", "Block size 1048576")),
    ],
)
def test_an_image_is_compressed_as_asked(
    tar: Path, tmp_path: Path, compression: Compression, said: tuple[str, ...]
) -> None:
    squash_tar(tar, tmp_path / "x.img", compression)

    about = unsquash("-s", tmp_path / "x.img")
    assert all(line in about for line in said), about
    assert unsquash("-cat", tmp_path / "x.img", "bin/ping") == "ping" * 1000


def test_owners_modes_devices_and_capabilities_are_kept(tar: Path, tmp_path: Path) -> None:
    squash_tar(tar, tmp_path / "x.img")

    listed = [line.split() for line in unsquash("-lln", tmp_path / "x.img").splitlines()]
    found = {line[-1].removeprefix("squashfs-root"): (line[0], line[1]) for line in listed if line}
    assert found[""] == ("drwxr-xr-x", "0/0")
    assert found["/dev/null"] == ("crw-rw-rw-", "0/0")
    assert found["/home/user"] == ("drwx------", "1000/1000")
    assert "Number of xattr ids 1" in unsquash("-s", tmp_path / "x.img")


def test_a_user_makes_what_root_makes(tar: Path, tmp_path: Path) -> None:
    squash_tar(tar, tmp_path / "root.img")
    user = ["unshare", "--user", "--map-user=1000", "--map-group=1000", sys.executable, "-c"]
    program = (
        "import sys; from pathlib import Path; from extsloader.imagebuild import squashfs;"
        "squashfs.squash_tar(Path(sys.argv[1]), Path(sys.argv[2]))"
    )

    subprocess.run([*user, program, tar, tmp_path / "user.img"], check=True)

    assert (tmp_path / "user.img").read_bytes() == (tmp_path / "root.img").read_bytes()
