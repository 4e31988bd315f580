"""Small real images of busybox services, laid out by our own build tool as LinuxKit does it."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from extsloader.image.envelope import parse_envelope
from extsloader.image.schema import encode_manifest, parse_manifest
from extsloader.image.superblock import reader
from extsloader.image.trailer import find_end, read_trailer
from extsloader.imagebuild.image import TEST_IDENTITY, add_verity, measure_image, sign_image
from extsloader.imagebuild.linuxkit.bundles import SERVICES, plan_bundles
from extsloader.imagebuild.linuxkit.definition import parse_definition
from extsloader.imagebuild.linuxkit.layout import lay_out_bundles
from extsloader.imagebuild.linuxkit.spec import ImageConfig
from extsloader.imagebuild.manifest import make_manifest
from extsloader.imagebuild.squashfs import Compression, squash_tar
from extsloader.imagebuild.tree import Kind, Node, Tree, write_tar
from extsloader.model.manifest import Manifest

BUSYBOX = Path("/bin/busybox")
APPLETS = ("sh", "sleep", "cat", "dd", "false", "httpd", "mkdir", "nc", "test", "touch", "tail")
IDLE = "trap 'exit 0' TERM; sleep 100000 & wait"
"""Process 1 of a pid namespace gets only the signals that it handles (pid_namespaces(7))."""

PARENT_WAITS = "trap 'exit 0' TERM; {} & wait"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A service of a test image: its entry in the image definition, and its manifest's words."""

    entry: Mapping[str, Any]
    manifest: Mapping[str, Any]


def service(
    name: str, script: str = IDLE, entry: Mapping[str, Any] | None = None, **manifest: Any
) -> Wanted:
    """A service that runs a shell script; `manifest` is as authors write it."""
    own = {"name": name, "image": "busybox", "command": ["/bin/sh", "-c", script]}
    said = {"name": name, "bundle": f"{SERVICES}/{name}", "stop": {"grace": 0.5}}
    return Wanted(own | dict(entry or {}), said | manifest)


def make_image(
    out: Path,
    key: Ed25519PrivateKey | None,
    *services: Wanted,
    sequence: int = 1,
    content: Path | None = None,
) -> Manifest:
    """Build and sign (unless `key` is None) an image; the file `content` is put in as it is."""
    definition = parse_definition({"services": [s.entry for s in services]}, "test")
    tree = lay_out_bundles(
        plan_bundles(definition, {"busybox": ImageConfig()}, "test"), {"busybox": _busybox()}
    )
    if content:
        tree["content"] = Node(kind=Kind.FILE, mode=0o644, content=content.read_bytes())
    tar = out.with_suffix(".tar")
    with tar.open("wb") as file:
        write_tar(tree, file)
    out.unlink(missing_ok=True)
    squash_tar(tar, out, Compression(level=1))
    tar.unlink()
    add_verity(out)
    identity = replace(TEST_IDENTITY, sequence=sequence)
    payload = make_manifest(measure_image(out), [s.manifest for s in services], identity)
    if key:
        sign_image(out, payload, [key])
    return parse_manifest(payload)


def sign_again(source: Path, out: Path, key: Ed25519PrivateKey, **changes: Any) -> Manifest:
    """The same image with another manifest, which the build tool itself might refuse to write."""
    shutil.copy(source, out)
    changed = replace(read_manifest(source), **changes)
    sign_image(out, encode_manifest(changed), [key])
    return changed


def read_manifest(image: Path) -> Manifest:
    return parse_manifest(parse_envelope(read_envelope(image)).payload)


def read_envelope(image: Path) -> bytes:
    with image.open("rb") as file:
        trailer = read_trailer(reader(file.fileno()), image_end(image))
    assert trailer, f"{image} has no trailer"
    return trailer.envelope


def image_end(image: Path) -> int:
    """Where the trailer begins."""
    with image.open("rb") as file:
        return find_end(reader(file.fileno()))


def write_keys(directory: Path, keys: Sequence[Ed25519PrivateKey]) -> None:
    """Public keys as a device has them."""
    directory.mkdir(parents=True)
    for number, key in enumerate(keys):
        pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (directory / f"{number}.pem").write_bytes(pem)


@cache
def _busybox() -> Tree:
    program = Node(kind=Kind.FILE, content=BUSYBOX.read_bytes())
    links = {f"bin/{name}": Node(kind=Kind.LINK, mode=0o777, target="busybox") for name in APPLETS}
    return {"bin/busybox": program, **links}
