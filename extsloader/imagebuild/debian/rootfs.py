"""A container's root file system from package archives, without a chroot or maintainer scripts.

What those scripts do and a container needs is said in the recipe: users, directories, links and
configuration files. Debian's ld.so finds the libraries without a cache (ld.so(8), "default path").
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from extsloader.imagebuild.debian.archive import check_digest
from extsloader.imagebuild.debian.bytecode import make_bytecode
from extsloader.imagebuild.debian.kernel import make_kernel
from extsloader.imagebuild.debian.packages import Deb
from extsloader.imagebuild.debian.recipe import Recipe
from extsloader.imagebuild.debian.wheels import Wheel, find_target, unpack_wheels
from extsloader.imagebuild.tools import ARCHITECTURE, run_tool
from extsloader.imagebuild.tree import (
    DIRECTORY,
    Kind,
    Node,
    Tree,
    merge_usr,
    own,
    prune,
    read_directory,
    read_tar,
)

_NEVER_NEEDED = (
    "etc/cron.*", "etc/default", "etc/init.d", "etc/logrotate.d", "usr/lib/systemd",
    "usr/share/bash-completion", "usr/share/doc", "usr/share/info", "usr/share/initramfs-tools",
    "usr/share/lintian", "usr/share/locale", "usr/share/man",
)  # fmt: skip
_LICENCES = ("usr/share/doc/*/copyright",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredients:
    """All archives that a root file system is made of."""

    architecture: str
    debs: tuple[Deb, ...]
    wheels: tuple[Wheel, ...] = ()


def make_rootfs(recipe: Recipe, ingredients: Ingredients, cache: Path, scratch: Path) -> Tree:
    """Unpack the archives from the cache and apply the recipe; contents stay in `scratch`.

    Raises MachineError.
    """
    debs = ingredients.debs
    with ThreadPoolExecutor() as pool:
        trees = pool.map(lambda deb: _unpack(cache / deb.file_name, deb, scratch), debs)
        packages: Tree = {path: node for tree in trees for path, node in tree.items()}
    if recipe.kernel:
        return make_kernel(apply_recipe(packages, recipe), recipe.kernel, scratch)
    tree = apply_recipe(packages | unpack_wheels(ingredients.wheels, scratch), recipe)
    if recipe.python and recipe.python.bytecode and ingredients.architecture == ARCHITECTURE:
        tree |= make_bytecode(tree, find_target(debs, ARCHITECTURE).python, scratch)
    return tree


def apply_recipe(packages: Mapping[str, Node], recipe: Recipe) -> Tree:
    """Everything after unpacking: what the recipe names last wins."""
    tree = dict(packages) | _accounts({"root": 0} | recipe.users, recipe.groups)
    tree |= {path: own(DIRECTORY, owner) for path, owner in recipe.directories.items()}
    tree |= {
        path: Node(kind=Kind.LINK, mode=0o777, target=target)
        for path, target in recipe.links.items()
    }
    tree = prune(merge_usr(tree), (*_NEVER_NEEDED, *recipe.prune), keep=(*_LICENCES, *recipe.keep))
    return tree | merge_usr(read_directory(recipe.files))


def _unpack(path: Path, deb: Deb, scratch: Path) -> Tree:
    check_digest(path, deb)
    tar = scratch / f"{path.name}.tar"
    with tar.open("wb") as file:
        command = ["dpkg-deb", "--fsys-tarfile", str(path)]
        run_tool(command, f"unpack {path.name}", stdout=file)
    return read_tar(tar)


def _accounts(users: Mapping[str, int], groups: Mapping[str, int]) -> Tree:
    passwd = "".join(f"{name}:x:{uid}:{uid}::/:/bin/false\n" for name, uid in users.items())
    group = "".join(f"{name}:x:{gid}:\n" for name, gid in {**users, **groups}.items())
    return {
        "etc/passwd": Node(kind=Kind.FILE, mode=0o644, content=passwd.encode()),
        "etc/group": Node(kind=Kind.FILE, mode=0o644, content=group.encode()),
    }
