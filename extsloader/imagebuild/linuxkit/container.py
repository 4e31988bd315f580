"""The keys of one container in an image definition; a label org.mobyproject.config has them too.

Names and types are those of LinuxKit's schema. What LinuxKit notices only while it makes an OCI
specification (unknown capabilities and limits, mounts without type, ...) is refused here already.
"""

import re
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
)

_CAPABILITIES = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO
SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG
MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM
BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
ALL_CAPABILITIES = [f"CAP_{name}" for name in _CAPABILITIES.split()]
"""In the order of their numbers, include/uapi/linux/capability.h."""

_LIMITS = """
CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME
"""
_UNLIMITED = 2**64 - 1
_MAX_ID = 2**31 - 1

_MOUNT_POINTS = {
    "proc": "/proc",
    "devpts": "/dev/pts",
    "sysfs": "/sys",
    "cgroup": "/sys/fs/cgroup",
    "mqueue": "/dev/mqueue",
}
"""Types of mounts that have a usual place."""


class Strict(BaseModel):
    """A mapping without unknown keys and without null: a key that says nothing is left out."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_null(cls, value: object) -> object:
        if value is None:
            raise ValueError("expected a value, got null")
        return value


class IdMapping(Strict):
    """A range of ids of a user namespace."""

    container_id: int = Field(default=0, alias="containerID")
    host_id: int = Field(default=0, alias="hostID")
    size: int = 0


class Mount(Strict):
    """One mount, as the OCI runtime specification has it."""

    destination: str = ""
    type: str = ""
    source: str = ""
    options: list[str] = []
    uid_mappings: list[IdMapping] = Field(default=[], alias="uidmappings")
    gid_mappings: list[IdMapping] = Field(default=[], alias="gidmappings")


class Device(Strict):
    """A device node to make; the path `all` makes none, but allows all devices of the type."""

    path: Annotated[str, StringConstraints(pattern=r"^(/.+|all)$")]
    type: Annotated[str, StringConstraints(pattern=r"^[abcup]?$")] = ""
    major: int = 0
    minor: int = 0
    mode: Annotated[str, StringConstraints(pattern=r"^[0-7]{0,5}$")] = ""


class DeviceRule(Strict):
    """Which devices the container may use: one rule of the devices cgroup."""

    allow: bool = False
    type: str | None = None
    major: int | None = None
    minor: int | None = None
    access: str | None = None


class Memory(Strict):
    """Limits in bytes."""

    limit: int | None = None
    reservation: int | None = None
    swap: int | None = None
    kernel: int | None = None
    kernel_tcp: int | None = Field(default=None, alias="kernelTCP")
    swappiness: int | None = None
    disable_oom_killer: bool | None = Field(default=None, alias="disableOOMKiller")


class Cpu(Strict):
    """Times in microseconds."""

    shares: int | None = None
    quota: int | None = None
    period: int | None = None
    realtime_runtime: int | None = Field(default=None, alias="realtimeRuntime")
    realtime_period: int | None = Field(default=None, alias="realtimePeriod")
    cpus: str | None = None
    mems: str | None = None


class Pids(Strict):
    """How many processes and threads there may be."""

    limit: int = 0


class WeightDevice(Strict):
    """One block device's weight."""

    major: int = 0
    minor: int = 0
    weight: int | None = None
    leaf_weight: int | None = Field(default=None, alias="leafWeight")


class ThrottleDevice(Strict):
    """One block device's limit, in bytes or operations a second."""

    major: int = 0
    minor: int = 0
    rate: int = 0


class BlockIo(Strict):
    """Weights and limits of block devices."""

    weight: int | None = None
    leaf_weight: int | None = Field(default=None, alias="leafWeight")
    weight_device: list[WeightDevice] | None = Field(default=None, alias="weightDevice")
    read_bps: list[ThrottleDevice] | None = Field(default=None, alias="throttleReadBpsDevice")
    write_bps: list[ThrottleDevice] | None = Field(default=None, alias="throttleWriteBpsDevice")
    read_iops: list[ThrottleDevice] | None = Field(default=None, alias="throttleReadIOPSDevice")
    write_iops: list[ThrottleDevice] | None = Field(default=None, alias="throttleWriteIOPSDevice")


class HugepageLimit(Strict):
    """LinuxKit's schema wants an integer for the size of a page: bytes, to us."""

    page_size: int = Field(default=0, alias="pageSize")
    limit: int = 0


class Priority(Strict):
    """Traffic priority on one interface."""

    name: str = ""
    priority: int = 0


class Network(Strict):
    """Class and priorities of the traffic, cgroup v1 only."""

    class_id: int | None = Field(default=None, alias="classID")
    priorities: list[Priority] | None = None


class Resources(Strict):
    """Limits of the container's cgroup; fields in the order of the OCI specification's."""

    devices: list[DeviceRule] | None = None
    memory: Memory | None = None
    cpu: Cpu | None = None
    pids: Pids | None = None
    block_io: BlockIo | None = Field(
        default=None, validation_alias="blockio", serialization_alias="blockIO"
    )
    hugepage_limits: list[HugepageLimit] | None = Field(default=None, alias="hugepageLimits")
    network: Network | None = None


class Interface(Strict):
    """A network interface to make, or to move into the container."""

    name: str | None = None
    add: str | None = None
    peer: str | None = None
    create_in_root: bool = Field(default=False, alias="createInRoot")


class BindNs(Strict):
    """Paths to bind the container's namespaces to."""

    cgroup: str | None = None
    ipc: str | None = None
    mnt: str | None = None
    net: str | None = None
    pid: str | None = None
    user: str | None = None
    uts: str | None = None


class Runtime(Strict):
    """What LinuxKit's `service` prepares on the host before it creates the container."""

    cgroups: list[str] | None = None
    mounts: list[Mount] | None = None
    mkdir: list[str] | None = None
    interfaces: list[Interface] | None = None
    bind_ns: BindNs = Field(default=BindNs(), alias="bindNS")
    namespace: str | None = None


def _check_id(value: object) -> object:
    """Larger ids wrapped around to root in a runtime once (CVE-2024-40635)."""
    number = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_ID
    if not number and not isinstance(value, str):
        raise ValueError(f"expected a number from 0 to {_MAX_ID} or a name, got {value!r}")
    return value


def check_capabilities(names: list[str]) -> list[str]:
    """The names, unless one is unknown: then ValueError."""
    if len(names) == 1 and names[0].lower() in ("all", "none"):
        return names
    if unknown := [name for name in names if name not in ALL_CAPABILITIES]:
        raise ValueError(
            "expected capabilities like CAP_CHOWN, or only `all` or `none`, "
            f"got {', '.join(unknown)}"
        )
    return names


def split_rlimit(text: str) -> tuple[str, int, int]:
    """Name, soft and hard limit of a text like `nofile,100,unlimited`. Raises ValueError."""
    name, soft, hard = [part.strip() for part in [*text.split(",", 2), "", ""][:3]]
    name = name.upper().removeprefix("RLIMIT_")
    values = [_UNLIMITED if n.lower() == "unlimited" else _to_number(n) for n in (soft, hard)]
    if name not in _LIMITS.split() or not all(0 <= value <= _UNLIMITED for value in values):
        raise ValueError(f"expected a limit like nofile,1024,unlimited, got {text!r}")
    return f"RLIMIT_{name}", values[0], values[1]


def _to_number(text: str) -> int:
    return int(text) if re.fullmatch("[0-9]{1,20}", text) else -1


def _check_rlimit(text: str) -> str:
    split_rlimit(text)
    return text


def _complete_mount(mount: Mount) -> Mount:
    """Many mounts need no more than their type or their source."""
    kind = mount.type or (mount.source if mount.source in _MOUNT_POINTS else "")
    kind = kind or ("tmpfs" if mount.destination == "/dev" else "")
    destination = mount.destination or _MOUNT_POINTS.get(kind, "")
    for key, value in (("type", kind), ("destination", destination)):
        if not value:
            raise ValueError(f"expected a {key}, got none")
    source = mount.source or kind
    return mount.model_copy(
        update={"type": kind, "source": source, "destination": destination},
    )


def _check_device(device: Device) -> Device:
    if device.path != "all" and not device.mode:
        raise ValueError("expected an octal mode like '0600', got none")
    return device


Id = Annotated[int | str, BeforeValidator(_check_id)]
Capabilities = Annotated[list[str], AfterValidator(check_capabilities)]
Bind = Annotated[str, StringConstraints(pattern=r"^[^:]+:[^:]+(:[^:]+)?$")]
Tmpfs = Annotated[str, StringConstraints(pattern=r"^/[^:]*(:[^:]+)?$")]
Rlimit = Annotated[str, AfterValidator(_check_rlimit)]


class Container(Strict):
    """How to run a container; None is "not said here"."""

    command: list[str] | None = None
    env: list[str] | None = None
    cwd: str | None = None
    uid: Id | None = None
    gid: Id | None = None
    additional_gids: list[Id] | None = Field(default=None, alias="additionalGids")
    capabilities: Capabilities | None = None
    ambient: Capabilities | None = None
    no_new_privileges: bool | None = Field(default=None, alias="noNewPrivileges")
    rlimits: list[Rlimit] | None = None
    oom_score_adj: int | None = Field(default=None, alias="oomScoreAdj")
    readonly: bool | None = None
    binds: list[Bind] | None = None
    tmpfs: list[Tmpfs] | None = None
    mounts: list[Annotated[Mount, AfterValidator(_complete_mount)]] | None = None
    devices: list[Annotated[Device, AfterValidator(_check_device)]] | None = None
    net: str | None = None
    pid: str | None = None
    ipc: str | None = None
    uts: str | None = None
    userns: str | None = None
    uid_mappings: list[IdMapping] | None = Field(default=None, alias="uidMappings")
    gid_mappings: list[IdMapping] | None = Field(default=None, alias="gidMappings")
    hostname: str | None = None
    rootfs_propagation: str | None = Field(default=None, alias="rootfsPropagation")
    cgroups_path: str | None = Field(default=None, alias="cgroupsPath")
    resources: Resources | None = None
    sysctl: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    masked_paths: list[str] | None = Field(default=None, alias="maskedPaths")
    readonly_paths: list[str] | None = Field(default=None, alias="readonlyPaths")
    runtime: Runtime | None = None


class Extended(Container):
    """A container with the lists that add to another's."""

    capabilities_add: Capabilities = Field(default=[], alias="capabilities.add")
    binds_add: list[Bind] = Field(default=[], alias="binds.add")
