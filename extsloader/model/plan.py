"""What to do for one service, complete before anything is done."""

from dataclasses import dataclass
from enum import StrEnum

from extsloader.model.ids import Digest, ServiceName
from extsloader.model.manifest import Readiness, Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """The two files of a LinuxKit bundle as they lie in the mounted image."""

    service: ServiceName
    config: str  # config.json, the OCI runtime specification
    runtime: str  # runtime.json, "" where the bundle has none


class MountKind(StrEnum):
    """How a step is done and what undoes it."""

    MKDIR = "mkdir"  # undone if it is empty and below our run directory
    MOUNT = "mount"
    BIND = "bind"
    CHECK = "check"  # no link is on the way to the options' paths; "/" at the end: a directory


@dataclass(frozen=True, slots=True, kw_only=True)
class MountStep:
    """One do/undo pair; steps are done in order and undone in reverse order."""

    kind: MountKind
    target: str
    fs_type: str = ""
    source: str = ""
    options: tuple[str, ...] = ()  # fstab style: "ro", "nosuid", "size=64m", "lowerdir=…"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerPlan:
    """Everything that the machine needs to know to run one service."""

    service: ServiceName
    digest: Digest
    bundle_dir: str  # the root file system is mounted at <bundle_dir>/rootfs
    notify_dir: str  # on the host; bound into the container when readiness is by notify
    spec: str  # OCI config.json
    mounts: tuple[MountStep, ...]
    resources: Resources  # no None left: defaults are filled in
    readiness: Readiness
    reduced: tuple[str, ...] = ()  # what the machine cannot grant, in sentences
