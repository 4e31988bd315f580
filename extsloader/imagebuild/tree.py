"""A file system as plain data, so that merging packages needs neither root nor a chroot."""

import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from fnmatch import fnmatchcase
from io import BytesIO
from pathlib import Path
from typing import IO

from extsloader.imagebuild.squashfs import EPOCH
from extsloader.model.errors import ImageRefusedError
from extsloader.model.reasons import Code

_MERGED = ("bin", "lib", "lib64", "sbin")
"""Directories that are links into /usr in Debian 12 (its usrmerge package)."""


class Kind(Enum):
    """What a node is, as tar calls it."""

    FILE = tarfile.REGTYPE
    DIRECTORY = tarfile.DIRTYPE
    LINK = tarfile.SYMTYPE
    CHARACTER = tarfile.CHRTYPE
    BLOCK = tarfile.BLKTYPE
    FIFO = tarfile.FIFOTYPE


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One file of any kind; a hard link is a second path to an equal node."""

    kind: Kind
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    content: bytes = b""
    target: str = ""  # of a symbolic link
    device: tuple[int, int] = (0, 0)  # major, minor


Tree = dict[str, Node]
"""Nodes by path, without a leading slash; parents need no node of their own."""

DIRECTORY = Node(kind=Kind.DIRECTORY)


def read_tar(stream: IO[bytes], where: str) -> Tree:
    """Read an uncompressed tar file; hard links become equal nodes.

    Raises ImageRefusedError(E_PATH) for a path that leads out of the tree.
    """
    tree: Tree = {}
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            path = _inside(member.name, where)
            if not path:
                continue
            if member.islnk():
                tree[path] = tree[_inside(member.linkname, where)]
            else:
                file = tar.extractfile(member) if member.isreg() else None
                tree[path] = _node(member, file.read() if file else b"")
    return tree


def _node(member: tarfile.TarInfo, content: bytes) -> Node:
    return Node(
        kind=Kind.FILE if member.isreg() else Kind(member.type),
        mode=member.mode,
        uid=member.uid,
        gid=member.gid,
        content=content,
        target=member.linkname if member.issym() else "",
        device=(member.devmajor, member.devminor) if member.isdev() else (0, 0),
    )


def _inside(name: str, where: str) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ImageRefusedError(Code.PATH, f"cannot use {where}: it holds the path {name!r}")
    return "/".join(parts)


def merge_usr(tree: Mapping[str, Node]) -> Tree:
    """Move /bin, /lib and their like below /usr and put links in their place."""
    moved = {
        f"usr/{path}" if path.partition("/")[0] in _MERGED else path: node
        for path, node in tree.items()
    }
    real = dict.fromkeys((f"usr/{name}" for name in _MERGED), DIRECTORY)
    links = {name: Node(kind=Kind.LINK, mode=0o777, target=f"usr/{name}") for name in _MERGED}
    return moved | real | links


def prune(tree: Mapping[str, Node], globs: Iterable[str], keep: Iterable[str] = ()) -> Tree:
    """Leave out what matches and everything below it.

    `*` matches slashes too, as in fnmatch(3) without flags. A path that matches `keep` stays.
    """
    left_out = [pattern for glob in globs for pattern in (glob, f"{glob}/*")]
    kept = tuple(keep)

    def matches(path: str, patterns: Iterable[str]) -> bool:
        return any(fnmatchcase(path, pattern) for pattern in patterns)

    return {
        path: node
        for path, node in tree.items()
        if not matches(path, left_out) or matches(path, kept)
    }


def parents(path: str) -> list[str]:
    """All directories above a path, outermost first."""
    parts = path.split("/")
    return ["/".join(parts[:length]) for length in range(1, len(parts))]


def read_directory(directory: Path) -> Tree:
    """Read a checked-out directory: owner root, mode 0755 where executable and 0644 elsewhere.

    Git keeps no more than that, so it cannot differ from one machine to the next.
    """
    tree: Tree = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_symlink():
            tree[name] = Node(kind=Kind.LINK, mode=0o777, target=str(path.readlink()))
        elif path.is_dir():
            tree[name] = DIRECTORY
        else:
            mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            tree[name] = Node(kind=Kind.FILE, mode=mode, content=path.read_bytes())
    return tree


def write_tar(tree: Mapping[str, Node], out: IO[bytes]) -> None:
    """Write a tree, sorted and with one fixed time: the same bytes for the same tree."""
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(complete(tree)):
            node = tree.get(path, DIRECTORY)
            member = tarfile.TarInfo(path)
            member.type, member.mode, member.mtime = node.kind.value, node.mode, EPOCH
            member.uid, member.gid, member.linkname = node.uid, node.gid, node.target
            member.size, (member.devmajor, member.devminor) = len(node.content), node.device
            tar.addfile(member, BytesIO(node.content))


def complete(tree: Mapping[str, Node]) -> set[str]:
    """All paths with their parents."""
    return {*tree, *(parent for path in tree for parent in parents(path))}


def move(tree: Mapping[str, Node], below: str) -> Tree:
    """The same tree below another directory."""
    return {f"{below}/{path}": node for path, node in tree.items()}


def own(node: Node, owner: int) -> Node:
    """The same node with another owner and group."""
    return replace(node, uid=owner, gid=owner)
