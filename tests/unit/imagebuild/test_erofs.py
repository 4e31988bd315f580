"""Images are made by mkfs.erofs and read by its companions."""

import subprocess
from io import BytesIO
from pathlib import Path

import pytest

from extsloader.imagebuild.erofs import check_ownership, make_erofs
from extsloader.imagebuild.tree import Kind, Node, Tree, write_tar
from extsloader.model.errors import MachineError

TREE: Tree = {
    "bin/tool": Node(kind=Kind.FILE, content=b"tool" * 10_000),
    "etc/link": Node(kind=Kind.LINK, mode=0o777, target="../bin/tool"),
}


def make(folder: Path, tree: Tree) -> Path:
    folder.mkdir()
    out = BytesIO()
    write_tar(tree, out)
    (folder / "x.tar").write_bytes(out.getvalue())
    make_erofs(folder / "x.tar", folder / "x.img")
    return folder / "x.img"


def test_an_image_is_sound_and_the_same_anywhere(tmp_path: Path) -> None:
    one, other = make(tmp_path / "one", TREE), make(tmp_path / "other", TREE)

    subprocess.run(["fsck.erofs", one], check=True, capture_output=True)
    assert one.read_bytes() == other.read_bytes()
    assert sorted(path.name for path in one.parent.iterdir()) == ["x.img", "x.tar"]


def test_owners_and_modes_are_those_of_the_tar(tmp_path: Path) -> None:
    tool = Node(kind=Kind.FILE, mode=0o750, content=b"x")

    image = make(tmp_path / "one", {"bin/tool": tool})

    assert "Uid: 0   Gid: 0  Access: 0750" in describe(image, "/bin/tool")
    assert "Access: 0755" in describe(image, "/")


@pytest.mark.root
def test_root_keeps_other_owners_devices_and_capabilities(tmp_path: Path) -> None:
    capable = {"security.capability": "\x01\0\0\x02\0 \0\0\0\0\0\0\0\0\0\0\0\0\0\0"}
    tree = {
        "bin/ping": Node(kind=Kind.FILE, content=b"x", xattrs=capable),
        "dev/null": Node(kind=Kind.CHARACTER, mode=0o666, device=(1, 3)),
        "home": Node(kind=Kind.DIRECTORY, mode=0o700, uid=1000, gid=1001),
    }

    image = make(tmp_path / "one", tree)

    assert "Uid: 1000   Gid: 1001  Access: 0700" in describe(image, "/home")
    assert "Xattr size: 0" not in describe(image, "/bin/ping")
    assert "char dev" in describe(image, "/dev/null")


@pytest.mark.parametrize(
    "node",
    [Node(kind=Kind.FILE, uid=1), Node(kind=Kind.FILE, gid=1), Node(kind=Kind.CHARACTER)],
    ids=["user", "group", "device"],
)
def test_what_only_root_can_unpack_is_refused_to_others(node: Node) -> None:
    with pytest.raises(MachineError, match="such as /x") as caught:
        check_ownership({"x": node, "y": Node(kind=Kind.FILE)}, "make x.img")

    assert caught.value.problem.hint == "run it as root, or make a squashfs"


def describe(image: Path, path: str) -> str:
    return subprocess.run(
        ["dump.erofs", f"--path={path}", image], check=True, capture_output=True, text=True
    ).stdout
