"""A file system as plain data, so that merging packages needs neither root nor a chroot."""

import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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

_CHUNK = 1 << 20  # bytes
_XATTR = "SCHILY.xattr."
"""Prefix of extended attributes in PAX headers, as GNU tar and Go's archive/tar write them."""


class Kind(Enum):
    """What a node is, as tar calls it."""

    FILE = tarfile.REGTYPE
    DIRECTORY = tarfile.DIRTYPE
    LINK = tarfile.SYMTYPE
    CHARACTER = tarfile.CHRTYPE
    BLOCK = tarfile.BLKTYPE
    FIFO = tarfile.FIFOTYPE


@dataclass(frozen=True, slots=True)
class Extent:
    """Bytes that stay in a file until they are written: a tree of gigabytes takes no memory.

    The file must not change, nor go, before the tree is written.
    """

    path: Path
    offset: int
    size: int

    def __len__(self) -> int:
        return self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One file of any kind. One node at two paths is one file with two names (a hard link)."""

    kind: Kind
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime: int = EPOCH  # seconds since 1970
    content: bytes | Extent = b""
    target: str = ""  # of a symbolic link
    device: tuple[int, int] = (0, 0)  # major, minor
    xattrs: Mapping[str, str] = field(default_factory=dict, hash=False)
    # bytes as tarfile has them: UTF-8 with surrogateescape


Tree = dict[str, Node]
"""Nodes by path, without a leading slash; parents need no node of their own."""

DIRECTORY = Node(kind=Kind.DIRECTORY)


def read_tar(path: Path, part: Extent | None = None) -> Tree:
    """Read an uncompressed tar file, or one that is part of a file; its bytes stay where they are.

    Raises ImageRefusedError(E_PATH) for a path that leads out of the tree, and tarfile.TarError.
    """
    tree: Tree = {}
    part = part or Extent(path, 0, path.stat().st_size)
    end = part.offset + part.size
    with path.open("rb") as file:
        file.seek(part.offset)
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                # A part that lacks its end would go on with what follows it in the file.
                if member.offset >= end:
                    break
                if member.isreg() and member.offset_data + member.size > end:
                    raise tarfile.ReadError("unexpected end of data")
                name = make_inside(member.name, path.name)
                if not name:
                    continue
                if member.islnk():
                    tree[name] = tree[make_inside(member.linkname, path.name)]
                else:
                    tree[name] = make_node(member, path)
            # tarfile takes a damaged header for the end.
            file.seek(tar.offset)
            if tar.offset < end and any(file.read(tarfile.BLOCKSIZE)):
                raise tarfile.ReadError("invalid header")
    return tree


def make_node(member: tarfile.TarInfo, archive: Path) -> Node:
    """The node of a member that is no hard link, of an uncompressed archive."""
    kind = Kind.FILE if member.isreg() else Kind(member.type)
    return Node(
        kind=kind,
        mode=member.mode,
        uid=member.uid,
        gid=member.gid,
        mtime=int(member.mtime),
        content=Extent(archive, member.offset_data, member.size) if member.size else b"",
        target=member.linkname if kind is Kind.LINK else "",
        device=(member.devmajor, member.devminor) if member.isdev() else (0, 0),
        xattrs={
            name.removeprefix(_XATTR): value
            for name, value in member.pax_headers.items()
            if name.startswith(_XATTR)
        },
    )


def make_inside(name: str, where: str) -> str:
    """The path of an archive's member as trees have it. Raises ImageRefusedError(E_PATH)."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ImageRefusedError(Code.PATH, f"cannot use {where}: it holds the path {name!r}")
    return "/".join(parts)


def put_over(tree: Tree, upper: Mapping[str, Node]) -> None:
    """Put another tree over this one, as unpacking one archive after the other would.

    A directory, and what lies below it, takes the place of what is no directory.
    """
    for path, node in upper.items():
        for parent in parents(path):
            if parent in tree and tree[parent].kind is not Kind.DIRECTORY:
                tree[parent] = DIRECTORY
        tree[path] = node


def check_parents(tree: Mapping[str, Node]) -> None:
    """Raises ImageRefusedError(E_PATH) where something lies below what is no directory."""
    for path in tree:
        for parent in parents(path):
            if (kind := tree.get(parent, DIRECTORY).kind) is not Kind.DIRECTORY:
                raise ImageRefusedError(
                    Code.PATH,
                    f"cannot lay out {path}: expected /{parent} to be a directory in every image, "
                    f"got a {kind.name.lower()} in one of them",
                )


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
    """Write a tree, sorted: the same bytes for the same tree."""
    written: dict[int, str] = {}  # paths of files by the identity of their node
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(complete(tree)):
            node = tree.get(path, DIRECTORY)
            if node.kind is Kind.FILE and (first := written.setdefault(id(node), path)) != path:
                tar.addfile(_hard_link(path, first, node))
                continue
            with open_content(node) as content:
                tar.addfile(_member(path, node), content)


def _member(path: str, node: Node) -> tarfile.TarInfo:
    member = tarfile.TarInfo(path)
    member.type, member.mode, member.mtime = node.kind.value, node.mode, node.mtime
    member.uid, member.gid, member.linkname = node.uid, node.gid, node.target
    member.size, (member.devmajor, member.devminor) = len(node.content), node.device
    member.pax_headers = {f"{_XATTR}{name}": value for name, value in sorted(node.xattrs.items())}
    return member


def _hard_link(path: str, first: str, node: Node) -> tarfile.TarInfo:
    member = _member(path, node)
    member.type, member.linkname, member.size = tarfile.LNKTYPE, first, 0
    return member


@contextmanager
def open_content(node: Node) -> Iterator[IO[bytes]]:
    """A file that stands at the node's first byte."""
    if isinstance(node.content, bytes):
        yield BytesIO(node.content)
        return
    with node.content.path.open("rb") as file:
        file.seek(node.content.offset)
        yield file


def split_content(node: Node) -> Iterator[bytes]:
    """A node's bytes, some at a time."""
    left = len(node.content)
    with open_content(node) as file:
        while chunk := file.read(min(left, _CHUNK)):
            yield chunk
            left -= len(chunk)


def read_content(node: Node) -> bytes:
    """A node's bytes, for those that are known to be few."""
    with open_content(node) as file:
        return file.read(len(node.content))


def complete(tree: Mapping[str, Node]) -> set[str]:
    """All paths with their parents."""
    return {*tree, *(parent for path in tree for parent in parents(path))}


def move(tree: Mapping[str, Node], below: str) -> Tree:
    """The same tree below another directory."""
    return {f"{below}/{path}": node for path, node in tree.items()}


def copy(tree: Mapping[str, Node]) -> Tree:
    """The same tree again: its hard links stay among themselves."""
    copies = {id(node): replace(node) for node in tree.values()}
    return {path: copies[id(node)] for path, node in tree.items()}


def own(node: Node, owner: int) -> Node:
    """The same node with another owner and group."""
    return replace(node, uid=owner, gid=owner)
