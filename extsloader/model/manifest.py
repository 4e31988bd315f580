"""The signed manifest as the daemon sees it: plain data, already checked by the verify helper.

The schema with its limits and messages is `extsloader.image.schema`; a test holds the two equal.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from extsloader.model.ids import Digest, ServiceName


def parse_time(text: str) -> float:
    """Seconds since 1970 of `YYYY-MM-DDThh:mm:ssZ`. Raises ValueError."""
    return datetime.fromisoformat(text).timestamp()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verity:
    """All parameters of the dm-verity tree that follows the squashfs (veritysetup, format 1)."""

    algorithm: str  # "sha256"
    root_hash: str
    salt: str  # hex
    block_size: int  # bytes, data and hash blocks alike
    data_blocks: int
    hash_offset: int  # bytes from the start of the image


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """What the manifest says about the bytes before the trailer."""

    size: int  # bytes: squashfs, padding and hash tree
    digest: Digest
    format: str  # "squashfs"
    verity: Verity


@dataclass(frozen=True, slots=True, kw_only=True)
class Compatible:
    """Which devices the image is meant for; a missing list is refused by the schema, not "any"."""

    arch: str
    hypervisors: tuple[str, ...]
    core_min: str = ""
    core_max: str = ""
    device_ids: tuple[str, ...] = ()  # empty: every device of this kind


class ProbeKind(StrEnum):
    """Ways to learn that a service is ready."""

    NOTIFY = "notify"
    EXEC = "exec"
    TCP = "tcp"
    HTTP = "http"
    FILE = "file"
    DELAY = "delay"


PROBES: dict[ProbeKind, tuple[str, ...]] = {
    ProbeKind.EXEC: ("command",),
    ProbeKind.TCP: ("port",),
    ProbeKind.HTTP: ("port", "path"),
    ProbeKind.FILE: ("path",),
}
"""The ways to ask a service, and what each of them cannot do without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """When a started service counts as ready. Without one in the manifest: at once (delay 0)."""

    kind: ProbeKind = ProbeKind.DELAY
    command: tuple[str, ...] = ()  # exec: run inside the container, exit code 0 is ready
    host: str = "127.0.0.1"
    port: int = 0
    path: str = ""  # http: request target; file: path inside the container
    seconds: float = 0.0  # delay
    timeout: float = 30.0  # seconds from start until it counts as failed


class Profile(StrEnum):
    """How much a service may ask for, from little to everything."""

    STRICT = "strict"
    DEFAULT = "default"
    TRUSTED = "trusted"


class HealthAction(StrEnum):
    """What follows when a running service fails its probes."""

    RESTART = "restart"
    DEGRADE = "degrade"  # it runs on, and the whole is degraded until it is well again


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """A probe that a ready service has to pass again and again; all times in seconds."""

    kind: ProbeKind  # exec, tcp, http or file, as for readiness
    command: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 0
    path: str = ""
    interval: float = 10.0  # from one answer to the next question
    timeout: float = 2.0  # of one probe
    failures: int = 3  # in a row
    action: HealthAction = HealthAction.RESTART


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What the device must be like; else the service is skipped. Looked at once, at the mount."""

    paths: tuple[str, ...] = ()  # all of them exist on the device
    hypervisors: tuple[str, ...] = ()  # it is one of them; empty: any
    command_line: tuple[str, ...] = ()  # all of these words are on the kernel's command line


class RestartPolicy(StrEnum):
    """What the end of a service means."""

    ALWAYS = "always"
    ON_FAILURE = "on-failure"
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """Exponential back-off with jitter; all times in seconds."""

    policy: RestartPolicy = RestartPolicy.ALWAYS
    base: float = 1.0
    cap: float = 300.0
    jitter: float = 1.0  # share of the delay that is drawn by lot: 1 is full jitter
    limit: int = 10  # failures in a row before it is parked; 0 is no limit
    reset_after: float = 60.0  # a run that was ready for so long starts the count anew


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """How to end a service politely."""

    signal: str = "SIGTERM"
    grace: float = 10.0  # seconds until the whole cgroup is killed


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Limits of one service; `None` takes the device's default."""

    memory: int | None = None  # bytes
    swap: int = 0  # bytes on top of memory
    cpu_weight: int = 100  # 1..10000 as cgroup v2 cpu.weight
    cpu_quota: float | None = None  # processors, 0.5 is half of one
    pids: int | None = None
    io_weight: int | None = None  # 1..10000 as cgroup v2 io.weight
    io_read_bps: int | None = None  # bytes a second
    io_write_bps: int | None = None  # bytes a second
    oom_score_adj: int = 0  # -1000..1000
    nice: int = 0  # -20..19


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One service of the image and what it needs."""

    name: ServiceName
    bundle: str  # path inside the image: "containers/services/<name>"
    requires: tuple[ServiceName, ...] = ()  # must be ready first; if it gives up, this one stops
    wants: tuple[ServiceName, ...] = ()  # waited for until ready or failed once
    after: tuple[ServiceName, ...] = ()  # order only, where both are there
    conflicts: tuple[ServiceName, ...] = ()  # never runs together with these
    conditions: Conditions = Conditions()
    stage: int = 0  # waits until the services of lower stages are ready or have failed once
    essential: bool = False
    resources: Resources = Resources()
    restart: Restart = Restart()
    readiness: Readiness = Readiness()
    health: Health | None = None
    stop: Stop = Stop()
    profile: Profile | None = None  # a lower one than the device's; None takes that


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The signed truth about one image."""

    schema: int
    name: str
    version: str
    sequence: int
    issued_at: str  # RFC 3339 with Z
    expires: str = ""
    image: ImageSpec
    compatible: Compatible
    services: tuple[Service, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """A verified image that lies in the store as one file: image bytes, then its trailer."""

    manifest: Manifest
    path: str
    key_ids: tuple[str, ...]  # the distinct keys that vouched for it
    key_epoch: int = 0  # of the key set that these are in
    retired: bool = False  # without keys that have retired, too few have signed
    pinned: bool = False  # by its root hash; its services are those that lie in it

    @property
    def digest(self) -> Digest:
        """The image's name everywhere."""
        return self.manifest.image.digest
