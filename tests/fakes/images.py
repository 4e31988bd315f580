"""Small real images, signed like those for devices; each test spoils what it is about."""

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from extsloader.image.schema import encode_manifest
from extsloader.image.signing import sign
from extsloader.image.trailer import append_trailer
from extsloader.image.verity import append_tree
from extsloader.model.ids import Digest, ServiceName, SourceId
from extsloader.model.machine import Machine
from extsloader.model.manifest import Compatible, ImageSpec, Manifest, Service
from extsloader.model.source import Source, SourceKind, file_generation

SALT, UUID_ = bytes(range(32)), UUID(int=7)
MACHINE = Machine(arch="amd64", hypervisor="kvm", core_version="14.5.0", device_id="device-1")


def private_key(number: int = 1) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)


def key_directory(
    path: Path,
    *numbers: int,
    threshold: int | None = None,
    epoch: int = 0,
    retired: Iterable[int] = (),
    revoked: Iterable[int] = (),
) -> str:
    path.mkdir()
    for number in numbers:
        public = private_key(number).public_key()
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (path / f"{number}.pem").write_bytes(pem)
    policy = {
        "threshold": threshold or 1,
        "epoch": epoch,
        "retired": [f"{number}.pem" for number in retired],
        "revoked": [f"{number}.pem" for number in revoked],
    }
    if threshold or epoch or retired or revoked:
        (path / "policy.json").write_text(json.dumps(policy))
    return str(path)


def store_in(directory: Path) -> str:
    """An image store, as the daemon makes it before it starts any helper."""
    path = directory / "store"
    path.mkdir(mode=0o700, exist_ok=True)
    return str(path)


@cache
def squashfs(size: int = 300_000) -> bytes:
    """A file system with `size` incompressible bytes in it."""
    with TemporaryDirectory(prefix="extst-") as folder:
        Path(folder, "content").write_bytes(os.urandom(size))
        Path(folder, "small").write_text("a fragment")
        return squashfs_of(Path(folder))


def squashfs_of(root: Path) -> bytes:
    """A file system with what lies there."""
    with TemporaryDirectory(prefix="extst-") as folder:
        out = Path(folder, "out.img")
        argv = ["mksquashfs", str(root), str(out), "-quiet", "-no-progress", "-comp", "gzip"]
        subprocess.run(argv, check=True, capture_output=True)
        return out.read_bytes()


def unsigned(path: Path, size: int = 300_000) -> ImageSpec:
    """Squashfs and hash tree, without a trailer."""
    path.write_bytes(squashfs(size))
    verity = append_tree(str(path), salt=SALT, uuid=UUID_)
    content = path.read_bytes()
    return ImageSpec(
        size=len(content),
        digest=Digest(sha256(content).hexdigest()),
        format="squashfs",
        verity=verity,
    )


def manifest(image: ImageSpec, needs: Mapping[str, str] | None = None) -> Manifest:
    """A manifest whose services are the keys of `needs`, each requiring its value, if any."""
    return Manifest(
        schema=1,
        name="pkgs",
        version="1.0",
        sequence=1,
        issued_at="2026-01-01T00:00:00Z",
        image=image,
        compatible=Compatible(arch="amd64", hypervisors=("kvm", "k")),
        services=tuple(
            Service(
                name=ServiceName(name),
                bundle=f"containers/services/{name}",
                requires=(ServiceName(other),) if other else (),
            )
            for name, other in (needs or {"a": "", "b": "a"}).items()
        ),
    )


def signed(path: Path, *numbers: int, size: int = 300_000, **changes: object) -> Manifest:
    """A complete image, signed by the keys of these numbers (1 when there are none)."""
    wanted = replace(manifest(unsigned(path, size)), **changes)  # type: ignore[arg-type]
    append_trailer(str(path), envelope(wanted, *numbers))
    return wanted


def envelope(wanted: Manifest, *numbers: int) -> bytes:
    return sign(encode_manifest(wanted), [private_key(number) for number in numbers or (1,)])


def file_source(path: Path, kind: SourceKind = SourceKind.FILE) -> Source:
    status = path.stat()
    generation = file_generation(status.st_ino, status.st_size, status.st_ctime_ns)
    return Source(id=SourceId(str(path), generation), kind=kind, size=status.st_size)


def names(directory: Path | str) -> list[str]:
    return sorted(path.name for path in Path(directory).iterdir())
