"""A kernel's image as LinuxKit wants it: the kernel, and a tar file of what belongs into /.

That is the chosen modules with those that they need, their index, and the initramfs.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from extsloader.imagebuild.debian.initramfs import make_initramfs
from extsloader.imagebuild.debian.recipe import KernelParts
from extsloader.imagebuild.tools import run_tool
from extsloader.imagebuild.tree import Extent, Kind, Node, Tree, read_content, write_tar
from extsloader.model.errors import SettingsError

_MODULE = re.compile(r"usr/lib/modules/([^/]+)/kernel/(?:.*/)?([^/]+)\.ko")
_NEEDS = re.compile(rb"\0depends=([^\0]*)\0")  # of the section .modinfo
_BUILTIN = ("modules.builtin", "modules.builtin.modinfo", "modules.order")


def make_kernel(tree: Tree, parts: KernelParts, scratch: Path) -> Tree:
    """The image of a kernel package's tree. Raises MachineError, SettingsError."""
    modules = {_plain(match[2]): path for path in tree if (match := _MODULE.fullmatch(path))}
    version = _find_version(tree)
    home = f"usr/lib/modules/{version}"
    _check_names({*parts.modules, *parts.initramfs}, modules, _list_builtin(tree, home))
    wanted = close_modules([*parts.modules, *parts.initramfs], modules, tree)
    own = {modules[name]: tree[modules[name]] for name in wanted}
    own |= {f"{home}/{name}": tree[f"{home}/{name}"] for name in _BUILTIN}
    own |= _make_index(own, version, scratch)
    first = close_modules(parts.initramfs, modules, tree)
    own["boot/initrd.img"] = make_initramfs(
        tree, {name: tree[modules[name]] for name in first}, scratch
    )
    return {
        "kernel": tree[f"boot/vmlinuz-{version}"],
        "kernel.tar": _pack(own, scratch / "kernel.tar"),
    }


def close_modules(
    names: Iterable[str], modules: Mapping[str, str], tree: Mapping[str, Node]
) -> list[str]:
    """The modules and all that they need, in an order in which they load; built-in ones left out.

    A module's file says what it needs (kernel, scripts/mod/modpost.c, "depends=").
    """
    order: list[str] = []

    def add(name: str) -> None:
        if name in order or name not in modules:
            return
        found = _NEEDS.search(read_content(tree[modules[name]]))
        for need in found[1].decode().split(",") if found else ():
            add(_plain(need))
        order.append(name)

    for name in names:
        add(_plain(name))
    return order


def _plain(name: str) -> str:
    """Hyphen and underscore are the same in names of modules (modprobe(8))."""
    return name.replace("-", "_")


def _find_version(tree: Tree) -> str:
    versions = {match[1] for path in tree if (match := _MODULE.fullmatch(path))}
    if len(versions) != 1:
        got = " and ".join(sorted(versions)) or "none"
        raise SettingsError((f"kernel: expected the modules of one kernel, got {got}",))
    return versions.pop()


def _list_builtin(tree: Tree, home: str) -> set[str]:
    lines = read_content(tree[f"{home}/modules.builtin"]).decode().split()
    return {_plain(Path(line).name.removesuffix(".ko")) for line in lines}


def _check_names(names: set[str], modules: Mapping[str, str], builtin: set[str]) -> None:
    unknown = sorted(n for n in names if _plain(n) not in modules and _plain(n) not in builtin)
    if unknown:
        problem = f"kernel: expected modules of the kernel package, got {', '.join(unknown)}"
        raise SettingsError((problem,))


def _make_index(tree: Tree, version: str, scratch: Path) -> Tree:
    root = scratch / "modules"
    for path, node in tree.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(read_content(node))
    (root / "lib").symlink_to("usr/lib")
    run_tool(["depmod", "-b", str(root), version], "index the modules")
    home = root / "usr/lib/modules" / version
    return {
        path.relative_to(root).as_posix(): Node(
            kind=Kind.FILE, mode=0o644, content=path.read_bytes()
        )
        for path in sorted(home.glob("modules.*"))
        if path.name not in _BUILTIN
    }


def _pack(tree: Tree, out: Path) -> Node:
    with out.open("wb") as file:
        write_tar(tree, file)
    return Node(kind=Kind.FILE, mode=0o644, content=Extent(out, 0, out.stat().st_size))
