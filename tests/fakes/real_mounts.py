"""A run directory with a stored image to mount, and the steps that services are made of."""

import os
from pathlib import Path
from typing import NamedTuple

from extsloader.adapters.mounts import mountinfo
from extsloader.adapters.mounts.port import Mounts
from extsloader.model.ids import Digest, ServiceName
from extsloader.model.manifest import (
    Compatible,
    ImageSpec,
    Manifest,
    Service,
    StoredImage,
    Verity,
)
from extsloader.model.plan import MountKind, MountStep

SERVICE = Service(name=ServiceName("web"), bundle="containers/services/web")


class Machine(NamedTuple):
    run: Path
    image: StoredImage
    mountpoint: Path

    def mount(self) -> str:
        descriptor = os.open(self.image.path, os.O_RDONLY)
        try:
            return Mounts(str(self.run)).mount_image(self.image, descriptor)
        finally:
            os.close(descriptor)


def stored(path: Path, size: int, digest: Digest) -> StoredImage:
    verity = Verity(
        algorithm="sha256",
        root_hash="0" * 64,
        salt="",
        block_size=4096,
        data_blocks=size // 4096,
        hash_offset=size,
    )
    manifest = Manifest(
        schema=1,
        name="pkgs",
        version="1",
        sequence=1,
        issued_at="2026-01-01T00:00:00Z",
        image=ImageSpec(size=size, digest=digest, format="squashfs", verity=verity),
        compatible=Compatible(arch="amd64", hypervisors=("kvm",)),
        services=(SERVICE,),
    )
    return StoredImage(manifest=manifest, path=str(path), key_ids=())


def loops_of(directory: Path) -> list[str]:
    files = Path("/sys/block").glob("loop*/loop/backing_file")
    return [text for file in files if (text := file.read_text()).startswith(str(directory))]


def mounts_at(path: Path) -> list[mountinfo.Mount]:
    return [mount for mount in mountinfo.read() if mount.target == str(path)]


def tmpfs(target: Path, *options: str, source: str = "extst") -> MountStep:
    return MountStep(
        kind=MountKind.MOUNT, target=str(target), fs_type="tmpfs", source=source, options=options
    )


def bind(source: Path, target: Path, *options: str) -> MountStep:
    return MountStep(kind=MountKind.BIND, target=str(target), source=str(source), options=options)


def mkdir(target: Path) -> MountStep:
    return MountStep(kind=MountKind.MKDIR, target=str(target))


def overlay(target: Path, lower: Path, upper: Path, *options: str) -> MountStep:
    directories = (f"lowerdir={lower}", f"upperdir={upper}/u", f"workdir={upper}/w")
    return MountStep(
        kind=MountKind.MOUNT,
        target=str(target),
        fs_type="overlay",
        source="overlay",
        options=("nosuid", "nodev", *directories, *options),
    )


def service_steps(machine: Machine) -> tuple[MountStep, ...]:
    upper, bundle = machine.run / "upper/web", machine.run / "bundles/web"
    lower = machine.mountpoint / "containers/services/web/lower"
    return (
        tmpfs(upper, "nosuid", "nodev", "size=64k", "mode=700"),
        mkdir(upper / "u"),
        mkdir(upper / "w"),
        mkdir(bundle),
        overlay(bundle / "rootfs", lower, upper),
    )
