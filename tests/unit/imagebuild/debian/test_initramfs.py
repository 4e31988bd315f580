"""The kernel reads what is written here; busybox's cpio stands in for it."""

import subprocess
from io import BytesIO
from pathlib import Path

import pytest

from extsloader.imagebuild.debian.initramfs import make_initramfs, write_cpio
from extsloader.imagebuild.tree import Kind, Node, Tree
from extsloader.model.errors import SettingsError

BASE: Tree = {
    "usr/bin/busybox": Node(kind=Kind.FILE, content=b"ELF"),
    "usr/share/initramfs/init": Node(kind=Kind.FILE, content=b"#!/bin/sh\n"),
}
MODULE = Node(kind=Kind.FILE, content=b"module" * 1000)


def unpack(archive: bytes, into: Path) -> None:
    into.mkdir()
    command = ["busybox", "cpio", "-i", "-d"]
    subprocess.run(command, cwd=into, input=archive, check=True, capture_output=True)


def test_a_tree_is_written_as_the_kernel_reads_it(tmp_path: Path) -> None:
    out = BytesIO()
    tree = {
        "bin/sh": Node(kind=Kind.LINK, mode=0o777, target="busybox"),
        "bin/busybox": Node(kind=Kind.FILE, content=b"abc"),
        "etc/odd": Node(kind=Kind.FILE, mode=0o640, content=b"12345"),
    }

    write_cpio(tree, out)

    unpack(out.getvalue(), tmp_path / "root")
    assert (tmp_path / "root/bin/sh").readlink() == Path("busybox")
    assert (tmp_path / "root/bin/busybox").read_bytes() == b"abc"
    assert (tmp_path / "root/etc/odd").stat().st_mode == 0o100640
    assert len(out.getvalue()) % 4 == 0


def test_the_same_tree_gives_the_same_bytes() -> None:
    archives = set()
    for tree in ({"a": MODULE, "b": MODULE}, {"b": MODULE, "a": MODULE}):
        out = BytesIO()
        write_cpio(tree, out)
        archives.add(out.getvalue())

    assert len(archives) == 1


def test_it_holds_the_script_busybox_and_the_modules_in_their_order(tmp_path: Path) -> None:
    found = make_initramfs(BASE, {"overlay": MODULE, "loop": MODULE}, tmp_path)

    packed = (tmp_path / "initrd.img").read_bytes()
    assert len(packed) == len(found.content)
    plain = subprocess.run(["zstd", "-dc"], input=packed, check=True, capture_output=True).stdout
    assert b"overlay.ko\nloop.ko\n" in plain
    assert b"#!/bin/sh\n" in plain


def test_a_recipe_without_busybox_or_script_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"usr/bin/busybox and usr/share/initramfs/init"):
        make_initramfs({}, {}, tmp_path)
