"""Layers of a container image, one over the other (image-spec 1.0, "layer.md").

A layer is an archive from outside: what could lead out of the tree, what is no plain part of a
root file system, and what is larger than it may be, is refused.
"""

import gzip
import hashlib
import subprocess
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from extsloader.imagebuild.oci.layout import Blob, Layer, blob_path
from extsloader.imagebuild.oci.members import Members, list_members, refuse
from extsloader.imagebuild.steps import whole_file
from extsloader.imagebuild.tree import DIRECTORY, Kind, Node, Tree, make_inside, make_node, parents
from extsloader.model.errors import ImageRefusedError, MachineError
from extsloader.model.reasons import Code

MAX_BYTES = 16 << 30  # of one image, uncompressed; EVE's largest has 2 GiB
MAX_MEMBERS = 1_000_000  # of one image
_CHUNK = 1 << 20
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"


def unpack_layers(
    layout: Path, layers: Sequence[Layer], cache: Path, limit: int = MAX_BYTES
) -> list[Path]:
    """The layers' uncompressed tar files in the cache, both digests of each checked.

    `limit` is of all together, in bytes. Raises ImageRefusedError, MachineError.
    """
    tars = []
    for layer in layers:
        tars.append(_unpack(layout, layer, cache, limit))
        limit -= tars[-1].stat().st_size
    return tars


def _unpack(layout: Path, layer: Layer, cache: Path, limit: int) -> Path:
    tar = cache / f"{layer.diff_id.replace(':', '-')}.tar"
    if tar.exists():
        if tar.stat().st_size > limit:
            raise _too_large(layer.blob)
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
                    raise _too_large(layer.blob)
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


def _too_large(blob: Blob) -> ImageRefusedError:
    return _refuse(blob, Code.LIMIT, f"the image is larger than {MAX_BYTES} bytes")


def _refuse(blob: Blob, code: Code, reason: str) -> ImageRefusedError:
    return ImageRefusedError(code, f"cannot use the layer {blob.digest}: {reason}")


def flatten(tars: Iterable[Path]) -> Tree:
    """One tree of all layers, the lowest first. Raises ImageRefusedError."""
    tree: Tree = {}
    left = MAX_MEMBERS
    for tar in tars:
        members = list_members(tar, left)
        left -= len(members)
        _delete(tree, members, tar)
        _add(tree, members, tar)
    return tree


def _delete(tree: Tree, members: Members, tar: Path) -> None:
    """Deletions concern lower layers only, wherever in the archive they stand."""
    gone, emptied = set[str](), set[str]()
    for path, member in members:
        parent, slash, name = path.rpartition("/")
        if name == _OPAQUE:
            emptied.add(parent)
        elif name.startswith(_WHITEOUT):
            hidden = name.removeprefix(_WHITEOUT)
            if hidden in ("", ".", ".."):
                raise refuse(tar, Code.PATH, f"{path!r} hides no file")
            gone.add(f"{parent}{slash}{hidden}")
        elif path in tree and tree[path].kind is Kind.DIRECTORY and not member.isdir():
            emptied.add(path)
    above = gone | emptied
    if not above:
        return
    for path in list(tree):
        if path in gone or not above.isdisjoint(("", *parents(path))):
            del tree[path]


def _add(tree: Tree, members: Members, tar: Path) -> None:
    own: set[str] = set()  # paths of this layer
    for path, member in members:
        if path.rpartition("/")[2].startswith(_WHITEOUT):
            continue
        node = _make(member, tar, tree)
        for parent in parents(path):
            # Every directory has a node, so that a later file finds what it takes the place of.
            kind = tree.setdefault(parent, DIRECTORY).kind
            if kind is not Kind.DIRECTORY:
                reason = f"{path!r} lies below /{parent}, which is a {kind.name.lower()}"
                raise refuse(tar, Code.PATH, reason)
            own.add(parent)
        # Tools disagree whether the first or the last counts. Directories may come again.
        if path in own and not node.kind is tree[path].kind is Kind.DIRECTORY:
            raise refuse(tar, Code.PATH, f"{path!r} is there twice")
        own.add(path)
        tree[path] = node
        # Parents without a member of their own count, too: a path may imply two thousand.
        if len(tree) > MAX_MEMBERS:
            raise refuse(tar, Code.LIMIT, "too many files for one image")


def _make(member: tarfile.TarInfo, tar: Path, tree: Tree) -> Node:
    if not member.islnk():
        return make_node(member, tar)
    target = tree.get(make_inside(member.linkname, tar.name))
    if target is None or target.kind is not Kind.FILE:
        raise refuse(tar, Code.PATH, f"{member.name!r} links to {member.linkname!r}, no file")
    return target
