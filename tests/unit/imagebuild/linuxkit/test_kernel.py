import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from extsloader.imagebuild.linuxkit.definition import Kernel
from extsloader.imagebuild.linuxkit.kernel import lay_out_kernel
from extsloader.imagebuild.squashfs import EPOCH
from extsloader.imagebuild.tree import Extent, Kind, Node, Tree, read_content, read_tar, write_tar
from extsloader.model.errors import ImageRefusedError, SettingsError

MODULE: Tree = {"lib/modules/6.1/x.ko": Node(kind=Kind.FILE, mode=0o644, content=b"module" * 200)}


def make_image(tmp_path: Path, modules: bytes, **more: bytes) -> Tree:
    """An image as it comes from a registry: a tar file, in which kernel.tar is a file."""
    contents = {"kernel": b"bzImage", "kernel.tar": modules} | more
    tree = {
        name: Node(kind=Kind.FILE, mode=0o600, mtime=7, content=content)
        for name, content in contents.items()
    }
    with (tmp_path / "image.tar").open("wb") as file:
        write_tar(tree, file)
    return read_tar(tmp_path / "image.tar")


def pack(tree: Tree) -> bytes:
    out = BytesIO()
    write_tar(tree, out)
    return out.getvalue()


def test_the_kernel_its_command_line_and_the_content_of_its_tar_are_taken(tmp_path: Path) -> None:
    image = make_image(tmp_path, pack(MODULE), **{"System.map": b"not taken"})

    tree = lay_out_kernel(Kernel(image="k:1", cmdline="quiet"), image)

    assert set(tree) == {
        *("boot", "boot/cmdline", "boot/kernel"),
        *("lib", "lib/modules", "lib/modules/6.1", "lib/modules/6.1/x.ko"),
    }
    assert read_content(tree["boot/cmdline"]) == b"quiet"
    assert read_content(tree["boot/kernel"]) == b"bzImage"
    assert (tree["boot/kernel"].mode, tree["boot/kernel"].mtime) == (0o600, EPOCH)


def test_the_content_of_the_inner_tar_stays_in_the_outer_file(tmp_path: Path) -> None:
    tree = lay_out_kernel(Kernel(image="k:1"), make_image(tmp_path, pack(MODULE)))

    node = tree["lib/modules/6.1/x.ko"]
    assert isinstance(node.content, Extent)
    assert node.content.path == tmp_path / "image.tar"
    assert read_content(node) == b"module" * 200


def test_an_inner_tar_without_its_end_does_not_run_into_what_follows(tmp_path: Path) -> None:
    whole = pack({"a": Node(kind=Kind.FILE, content=b"x" * 512)})
    image = make_image(tmp_path, whole[:1024], zz=b"follows")

    assert set(lay_out_kernel(Kernel(image="k:1"), image)) == {
        *("boot", "boot/cmdline", "boot/kernel", "a"),
    }


def test_an_inner_tar_whose_last_file_is_cut_is_refused(tmp_path: Path) -> None:
    image = make_image(tmp_path, pack(MODULE)[:3000], zz=b"follows")

    with pytest.raises(
        SettingsError, match=r"kernel: kernel\.tar: expected an uncompressed tar file"
    ):
        lay_out_kernel(Kernel(image="k:1"), image)


def test_an_inner_tar_that_leads_out_of_the_tree_is_refused(tmp_path: Path) -> None:
    out = BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../../evil"))

    with pytest.raises(ImageRefusedError, match="evil"):
        lay_out_kernel(Kernel(image="k:1"), make_image(tmp_path, out.getvalue()))


def test_a_compressed_inner_tar_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"kernel: kernel\.tar: expected an uncompressed tar file in k"
    ):
        lay_out_kernel(Kernel(image="k:1"), make_image(tmp_path, b"\x1f\x8b" + b"x" * 2000))


def test_names_of_the_files_are_the_definitions(tmp_path: Path) -> None:
    image = make_image(tmp_path, b"", **{"boot/vmlinuz": b"other", "ucode.cpio": b"u"})
    kernel = Kernel(image="k:1", binary="boot/vmlinuz", tar="none", ucode="ucode.cpio")

    tree = lay_out_kernel(kernel, image)

    assert set(tree) == {"boot", "boot/cmdline", "boot/kernel", "boot/ucode.cpio"}
    assert read_content(tree["boot/kernel"]) == b"other"


@pytest.mark.parametrize("key", ["binary", "tar"])
def test_a_file_that_is_not_in_the_image_is_named(tmp_path: Path, key: str) -> None:
    kernel = Kernel(image="k:1", **{key: "none-such"})

    with pytest.raises(
        SettingsError, match=f"kernel: {key}: expected a file none-such in k:1, got"
    ):
        lay_out_kernel(kernel, make_image(tmp_path, b""))


def test_a_link_is_no_kernel() -> None:
    image: Tree = {"kernel": Node(kind=Kind.LINK, target="boot/vmlinuz")}

    with pytest.raises(SettingsError, match="got a link"):
        lay_out_kernel(Kernel(image="k:1"), image)
