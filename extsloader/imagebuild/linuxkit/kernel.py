"""What LinuxKit takes from a kernel's image: three files of it, and no more."""

from tarfile import TarError

from extsloader.imagebuild.linuxkit.definition import Kernel
from extsloader.imagebuild.squashfs import EPOCH
from extsloader.imagebuild.tree import (
    DIRECTORY,
    Extent,
    Kind,
    Node,
    Tree,
    make_inside,
    put_over,
    read_tar,
)
from extsloader.model.errors import SettingsError

_NO_TAR = ("", "none")


def lay_out_kernel(kernel: Kernel, image: Tree) -> Tree:
    """/boot, and the content of the image's tar file below /. Raises SettingsError."""
    tree: Tree = {
        "boot": DIRECTORY,
        "boot/cmdline": Node(kind=Kind.FILE, mode=0o644, content=kernel.cmdline.encode()),
        "boot/kernel": _stamp(_find(kernel, "binary", image)),
    }
    # Images of one kernel for several architectures have microcode for some of them only.
    if kernel.ucode and kernel.ucode in image:
        tree["boot/ucode.cpio"] = _stamp(_find(kernel, "ucode", image))
    if kernel.tar in _NO_TAR:
        return tree
    put_over(tree, _read_inner(kernel, _find(kernel, "tar", image)))
    return tree


def _read_inner(kernel: Kernel, node: Node) -> Tree:
    if not isinstance(node.content, Extent):  # only what is empty has no place in a file
        return {}
    try:
        return read_tar(node.content.path, node.content)
    except TarError as error:
        problem = f"expected an uncompressed tar file in {kernel.image}, got another: {error}"
        raise SettingsError((f"cannot lay out the kernel: {kernel.tar}: {problem}",)) from error


def _find(kernel: Kernel, key: str, image: Tree) -> Node:
    name: str = getattr(kernel, key)
    node = image.get(make_inside(name, kernel.image))
    if node is None or node.kind is not Kind.FILE:
        got = "nothing of that name" if node is None else f"a {node.kind.name.lower()}"
        problem = f"{key}: expected a file {name} in {kernel.image}, got {got}"
        raise SettingsError((f"cannot lay out the kernel: {problem}",))
    return node


def _stamp(node: Node) -> Node:
    return Node(kind=node.kind, mode=node.mode, mtime=EPOCH, content=node.content)
