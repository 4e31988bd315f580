from pathlib import Path

import pytest

from extsloader.imagebuild.debian.kernel import close_modules, make_kernel
from extsloader.imagebuild.debian.recipe import KernelParts
from extsloader.imagebuild.tree import Extent, Kind, Node, Tree, read_tar
from extsloader.model.errors import SettingsError

HOME = "usr/lib/modules/6.1.0-9-amd64"


def module(needs: str) -> Node:
    content = b"\x7fELF\0license=GPL\0depends=" + needs.encode() + b"\0retpoline=Y\0"
    return Node(kind=Kind.FILE, mode=0o644, content=content)


def text(content: bytes) -> Node:
    return Node(kind=Kind.FILE, mode=0o644, content=content)


TREE: Tree = {
    "boot/vmlinuz-6.1.0-9-amd64": text(b"kernel"),
    f"{HOME}/kernel/drivers/md/dm-mod.ko": module(""),
    f"{HOME}/kernel/drivers/md/dm-bufio.ko": module("dm-mod"),
    f"{HOME}/kernel/drivers/md/dm-verity.ko": module("dm-bufio,dm-mod"),
    f"{HOME}/kernel/net/never.ko": module(""),
    f"{HOME}/modules.builtin": text(b"kernel/fs/ext2.ko\n"),
    f"{HOME}/modules.builtin.modinfo": text(b""),
    f"{HOME}/modules.order": text(b""),
    "usr/bin/busybox": text(b"ELF"),
    "usr/share/initramfs/init": text(b"#!/bin/sh\n"),
}
NAMES = {
    Path(path).stem.replace("-", "_"): path for path in TREE if path.endswith(".ko")
}  # fmt: skip


def test_what_a_module_needs_comes_before_it() -> None:
    assert close_modules(["dm-verity"], NAMES, TREE) == ["dm_mod", "dm_bufio", "dm_verity"]


def test_an_image_has_the_kernel_and_a_tar_file_of_the_rest(tmp_path: Path) -> None:
    parts = KernelParts(modules=["dm-verity", "ext2"], initramfs=["dm-mod"])

    image = make_kernel(TREE, parts, tmp_path)

    assert set(image) == {"kernel", "kernel.tar"}
    assert image["kernel"].content == b"kernel"
    packed = image["kernel.tar"].content
    assert isinstance(packed, Extent)
    inner = read_tar(packed.path)
    modules = {Path(path).name for path in inner if path.endswith(".ko")}
    assert modules == {"dm-mod.ko", "dm-bufio.ko", "dm-verity.ko"}
    assert {"boot/initrd.img", f"{HOME}/modules.dep", f"{HOME}/modules.builtin"} <= set(inner)


def test_unknown_modules_are_all_named(tmp_path: Path) -> None:
    parts = KernelParts(modules=["dm-verity", "floppy"], initramfs=["tape"])

    with pytest.raises(
        SettingsError, match=r"expected modules of the kernel package, got floppy, tape"
    ):
        make_kernel(TREE, parts, tmp_path)


def test_two_kernels_are_one_too_many(tmp_path: Path) -> None:
    other = {"usr/lib/modules/6.2/kernel/a.ko": module("")}

    with pytest.raises(SettingsError, match=r"got 6\.1\.0-9-amd64 and 6\.2"):
        make_kernel(TREE | other, KernelParts(modules=[], initramfs=[]), tmp_path)
