from argparse import ArgumentTypeError
from io import BytesIO
from pathlib import Path

import pytest

from extsloader.imagebuild.sizes import check_limit, describe, measure, parse_size
from extsloader.imagebuild.tree import Kind, Node, Tree, write_tar
from extsloader.model.errors import MachineError

LIBRARY = Node(kind=Kind.FILE, content=bytes(3000))
TREE: Tree = {
    "boot/kernel": Node(kind=Kind.FILE, content=bytes(1000)),
    "containers/services/web/lower/usr/lib/a.so": LIBRARY,
    "containers/services/web/lower/usr/lib/b.so": LIBRARY,
    "init": Node(kind=Kind.FILE, content=bytes(10)),
    "usr/lib/modules/6.1/kernel/fs/a.ko": Node(kind=Kind.FILE, content=bytes(500)),
    "usr/lib/modules/6.1/kernel/net/b.ko": Node(kind=Kind.FILE, content=bytes(700)),
}


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("512", 512), ("4K", 4096), ("300M", 300 << 20), ("2G", 2 << 30)]
)
def test_sizes_are_read_with_their_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-5M", "1.5G", "5m", "0x10"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match=f"expected a size such as 300M, got {text!r}"):
        parse_size(text)


def test_files_count_for_their_container_or_directory_and_hard_links_once() -> None:
    assert measure(TREE) == {
        "containers/services/web": 3000,
        "usr/lib/modules/6.1": 1200,
        "boot": 1000,
        "/": 10,
    }


def test_the_biggest_come_first() -> None:
    assert [line.split()[-1] for line in describe(measure(TREE), 2)] == [
        "containers/services/web",
        "usr/lib/modules/6.1",
    ]


def test_an_image_over_the_limit_is_refused_with_what_is_big(tmp_path: Path) -> None:
    out = BytesIO()
    write_tar(TREE, out)
    (tmp_path / "x.tar").write_bytes(out.getvalue())
    (tmp_path / ".x.img.unfinished").write_bytes(bytes(101))

    with pytest.raises(
        MachineError, match=r"cannot make x\.img: expected at most 100 bytes, got 101"
    ) as e:
        check_limit(tmp_path / ".x.img.unfinished", 100, tmp_path / "x.tar")

    assert "containers/services/web" in str(e.value.problem.message)
    check_limit(tmp_path / ".x.img.unfinished", 101, tmp_path / "x.tar")
    check_limit(tmp_path / ".x.img.unfinished", 0, tmp_path / "x.tar")
