"""The initramfs: busybox, a script, and the modules that reach the root file system.

The format is "newc" of the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import IO

from extsloader.imagebuild.squashfs import EPOCH
from extsloader.imagebuild.tools import run_tool
from extsloader.imagebuild.tree import (
    DIRECTORY,
    Extent,
    Kind,
    Node,
    Tree,
    complete,
    split_content,
)
from extsloader.model.errors import SettingsError

_BUSYBOX = "usr/bin/busybox"
_SCRIPT = "usr/share/initramfs/init"
_APPLETS = (
    *("cat", "grep", "insmod", "ln", "mkdir", "mount", "poweroff", "reboot", "sed", "sh", "sleep"),
    *("switch_root", "usleep"),
)
_TYPES = {
    Kind.FILE: 0o100000,
    Kind.DIRECTORY: 0o040000,
    Kind.LINK: 0o120000,
    Kind.CHARACTER: 0o020000,
}
_END = "TRAILER!!!"


def make_initramfs(tree: Mapping[str, Node], modules: Mapping[str, Node], scratch: Path) -> Node:
    """Compressed, as a file in `scratch`; `modules` in the order in which they load.

    Raises SettingsError for a recipe without busybox or script, MachineError.
    """
    if missing := [path for path in (_BUSYBOX, _SCRIPT) if path not in tree]:
        raise SettingsError((f"kernel: expected the initramfs to find {' and '.join(missing)}",))
    plain, packed = scratch / "initrd.cpio", scratch / "initrd.img"
    with plain.open("wb") as file:
        write_cpio(_lay_out(tree, modules), file)
    with plain.open("rb") as source, packed.open("wb") as target:
        run_tool(["zstd", "-q", "-19"], "compress the initramfs", stdin=source, stdout=target)
    return Node(kind=Kind.FILE, mode=0o644, content=Extent(packed, 0, packed.stat().st_size))


def _lay_out(tree: Mapping[str, Node], modules: Mapping[str, Node]) -> Tree:
    names = "".join(f"{name}.ko\n" for name in modules)
    return {
        "bin/busybox": tree[_BUSYBOX],
        **{f"bin/{name}": Node(kind=Kind.LINK, mode=0o777, target="busybox") for name in _APPLETS},
        **{f"modules/{name}.ko": node for name, node in modules.items()},
        "modules/list": Node(kind=Kind.FILE, mode=0o644, content=names.encode()),
        "init": tree[_SCRIPT],
        "dev/console": Node(kind=Kind.CHARACTER, mode=0o600, device=(5, 1)),
        **dict.fromkeys(("proc", "sys", "lower", "upper", "root"), DIRECTORY),
    }


def write_cpio(tree: Mapping[str, Node], out: IO[bytes]) -> None:
    """Write a tree, sorted and with one time: the same bytes for the same tree."""
    for number, path in enumerate(sorted(complete(tree)), 1):
        node = tree.get(path, DIRECTORY)
        target = node.target.encode()
        size = len(node.content) or len(target)
        mode = _TYPES[node.kind] | node.mode
        _write_header(out, path, [number, mode, 0, 0, 1, EPOCH, size, 0, 0, *node.device])
        for chunk in split_content(node):
            out.write(chunk)
        out.write(target)
        out.write(bytes(-out.tell() % 4))
    _write_header(out, _END, [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0])


def _write_header(out: IO[bytes], path: str, fields: list[int]) -> None:
    name = path.encode() + b"\0"
    numbers = "".join(f"{field:08X}" for field in (*fields, len(name), 0))
    out.write(f"070701{numbers}".encode() + name)
    out.write(bytes(-out.tell() % 4))
