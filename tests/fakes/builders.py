"""Small valid things for tests; each test says only what matters to it."""

from dataclasses import replace
from typing import Any

from extsloader.model.ids import Digest, ServiceName, SourceId
from extsloader.model.machine import Machine, Moment
from extsloader.model.manifest import (
    Compatible,
    ImageSpec,
    Manifest,
    Service,
    StoredImage,
    Verity,
)
from extsloader.model.settings import Settings
from extsloader.model.source import FsType, Source, SourceKind, Superblock
from extsloader.model.world import World

MIB = 1 << 20


def moment(now: float = 0.0, dice: float = 0.0) -> Moment:
    return Moment(now=now, wall=1_700_000_000.0 + now, dice=dice)


def service(name: str, **fields: Any) -> Service:
    for kind in ("requires", "wants", "after", "conflicts"):
        fields[kind] = tuple(ServiceName(n) for n in fields.get(kind, ()))
    return Service(name=ServiceName(name), bundle=f"containers/services/{name}", **fields)


def manifest(*services: Service, sequence: int = 1, digest: str = "") -> Manifest:
    verity = Verity(
        algorithm="sha256",
        root_hash="0" * 64,
        salt="",
        block_size=4096,
        data_blocks=1,
        hash_offset=4096,
    )
    spec = ImageSpec(
        size=MIB,
        digest=Digest(digest or f"{sequence:x}".rjust(64, "d")),
        format="squashfs",
        verity=verity,
    )
    return Manifest(
        schema=1,
        name="pkgs",
        version=f"1.{sequence}",
        sequence=sequence,
        issued_at="2026-01-01T00:00:00Z",
        image=spec,
        compatible=Compatible(arch="amd64", hypervisors=("kvm",)),
        services=services,
    )


def stored(*services: Service, sequence: int = 1, digest: str = "") -> StoredImage:
    found = manifest(*services, sequence=sequence, digest=digest)
    return StoredImage(manifest=found, path=f"/store/{found.image.digest}.img", key_ids=("key-1",))


def source(path: str = "/dev/sdb", generation: str = "1", **fields: Any) -> Source:
    fields.setdefault("kind", SourceKind.DEVICE)
    return Source(id=SourceId(path, generation), size=fields.pop("size", MIB), **fields)


def squashfs() -> Superblock:
    return Superblock(fs_type=FsType.SQUASHFS, used=MIB)


def world(**fields: Any) -> World:
    base = World(settings=Settings(), machine=Machine(arch="amd64"))
    return replace(base, **fields)
