"""Layers of a container image, one over the other (image-spec 1.0, "layer.md").

A layer is an archive from outside: what could lead out of the tree, what is no plain part of a
root file system, and what is larger than it may be, is refused.
"""

import gzip
import hashlib
import subprocess
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from extsloader.imagebuild.oci.layout import Blob, Layer, blob_path
from extsloader.imagebuild.steps import whole_file
from extsloader.imagebuild.tree import DIRECTORY, Kind, Node, Tree, make_inside, make_node, parents
from extsloader.model.errors import ImageRefusedError, MachineError
from extsloader.model.reasons import Code

MAX_BYTES = 16 << 30  # of one layer, uncompressed; EVE's largest image has 2 GiB
MAX_MEMBERS = 1_000_000
_CHUNK = 1 << 20
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_ALLOWED = (Kind.FILE, Kind.DIRECTORY, Kind.LINK, Kind.FIFO)


def unpack_layer(layout: Path, layer: Layer, cache: Path, limit: int = MAX_BYTES) -> Path:
    """The layer's uncompressed tar file in the cache, both digests checked.

    Raises ImageRefusedError, MachineError.
    """
    tar = cache / f"{layer.diff_id.replace(':', '-')}.tar"
    if tar.exists():
        return tar
    cache.mkdir(parents=True, exist_ok=True)
    algorithm, _, expected = layer.diff_id.partition(":")
    digest = hashlib.new(algorithm)
    with whole_file(tar) as unfinished, unfinished.open("wb") as out:
        size = 0
        with _open_plain(layout, layer.blob) as source:
            while chunk := _read(source, layer.blob):
                size += len(chunk)
                if size > limit:
                    raise _refuse(layer.blob, Code.LIMIT, f"more than {limit} bytes")
                digest.update(chunk)
                out.write(chunk)
        if digest.hexdigest() != expected:
            reason = f"{algorithm} {expected} is configured, {digest.hexdigest()} got"
            raise _refuse(layer.blob, Code.DIGEST, reason)
    return tar


@contextmanager
def _open_plain(layout: Path, blob: Blob) -> Iterator[IO[bytes]]:
    path = blob_path(layout, blob)
    _check_blob(path, blob)
    if blob.media_type.endswith("gzip"):
        with gzip.open(path) as file:
            yield cast("IO[bytes]", file)
    elif blob.media_type.endswith("zstd"):
        with _decompress_zstd(path) as file:
            yield file
    elif blob.media_type.endswith(".tar"):
        with path.open("rb") as file:
            yield file
    else:
        raise _refuse(blob, Code.LAYOUT, f"a tar file expected, {blob.media_type!r} got")


@contextmanager
def _decompress_zstd(path: Path) -> Iterator[IO[bytes]]:
    """Python's library has no Zstandard before 3.14."""
    try:
        process = subprocess.Popen(
            ["zstd", "-dc", "--", str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except FileNotFoundError as error:
        hint = "apt-get install zstd"
        raise MachineError(Code.IO, f"unpack {path.name}", "zstd is not installed", hint) from error
    with process:
        yield cast("IO[bytes]", process.stdout)  # a pipe was asked for
        process.kill()


def _check_blob(path: Path, blob: Blob) -> None:
    algorithm, _, expected = blob.digest.partition(":")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            got = hashlib.file_digest(file, algorithm).hexdigest()
    except OSError as error:
        raise _refuse(blob, Code.LAYOUT, str(error.strerror).lower()) from error
    if size != blob.size:
        raise _refuse(blob, Code.SIZE, f"{blob.size} bytes expected, {size} got")
    if got != expected:
        raise _refuse(blob, Code.DIGEST, f"{algorithm} {got} got")


def _read(source: IO[bytes], blob: Blob) -> bytes:
    try:
        return source.read(_CHUNK)
    except (OSError, EOFError, zlib.error) as error:
        raise _refuse(blob, Code.LAYOUT, f"it cannot be uncompressed: {error}") from error


def _refuse(blob: Blob, code: Code, reason: str) -> ImageRefusedError:
    return ImageRefusedError(code, f"cannot use the layer {blob.digest}: {reason}")


def flatten(tars: Iterable[Path]) -> Tree:
    """One tree of all layers, the lowest first. Raises ImageRefusedError."""
    tree: Tree = {}
    for tar in tars:
        _apply(tree, tar)
    return tree


def _apply(tree: Tree, tar: Path) -> None:
    """Deletions concern lower layers only, wherever in the archive they stand."""
    members = _list_members(tar)
    for path, _ in members:
        parent, _, name = path.rpartition("/")
        if name == _OPAQUE:
            _remove_below(tree, parent)
        elif name.startswith(_WHITEOUT):
            gone = f"{parent}/{name.removeprefix(_WHITEOUT)}".lstrip("/")
            tree.pop(gone, None)
            _remove_below(tree, gone)
    for path, member in members:
        if not path.rpartition("/")[2].startswith(_WHITEOUT):
            _put(tree, path, _make(member, tar, tree))


def _list_members(tar: Path) -> list[tuple[str, tarfile.TarInfo]]:
    size = tar.stat().st_size
    found: list[tuple[str, tarfile.TarInfo]] = []
    try:
        with tarfile.open(tar, mode="r:") as archive:
            for member in archive:
                if len(found) >= MAX_MEMBERS:
                    raise _bad(tar, Code.LIMIT, f"more than {MAX_MEMBERS} files")
                if member.size < 0 or (member.isreg() and member.offset_data + member.size > size):
                    raise _bad(tar, Code.SIZE, f"{member.name!r} goes beyond its end")
                if path := make_inside(member.name, tar.name):
                    found.append((path, member))
    except (tarfile.TarError, ValueError) as error:
        raise _bad(tar, Code.LAYOUT, f"it is no tar file: {error}") from error
    return found


def _make(member: tarfile.TarInfo, tar: Path, tree: Tree) -> Node:
    if member.islnk():
        target = tree.get(make_inside(member.linkname, tar.name))
        if target is None or target.kind is not Kind.FILE:
            raise _bad(tar, Code.PATH, f"{member.name!r} links to {member.linkname!r}, no file")
        return target
    known = member.isreg() or member.type in {kind.value for kind in _ALLOWED}
    if not known or member.issparse():
        raise _bad(tar, Code.BUNDLE, f"{member.name!r} is of a kind that is not accepted")
    return make_node(member, tar)


def _put(tree: Tree, path: str, node: Node) -> None:
    """A file takes the place of a directory with all that is in it, and the reverse."""
    for parent in parents(path):
        # Every directory has a node, so that a later file finds what it takes the place of.
        kind = tree.setdefault(parent, DIRECTORY).kind
        if kind is not Kind.DIRECTORY:
            reason = f"{path!r} lies below /{parent}, which is a {kind.name.lower()}"
            raise ImageRefusedError(Code.PATH, f"cannot use the image: {reason}")
    replaced = tree[path].kind if path in tree else node.kind
    if replaced is Kind.DIRECTORY and node.kind is not Kind.DIRECTORY:
        _remove_below(tree, path)
    tree[path] = node


def _remove_below(tree: Tree, path: str) -> None:
    prefix = f"{path}/" if path else ""
    for lower in [lower for lower in tree if lower.startswith(prefix)]:
        del tree[lower]


def _bad(tar: Path, code: Code, reason: str) -> ImageRefusedError:
    return ImageRefusedError(code, f"cannot use the layer {tar.stem}: {reason}")
