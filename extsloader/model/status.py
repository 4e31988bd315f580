"""The one truth about the agent, as `/v1/status` serves it (schema 1)."""

from dataclasses import dataclass
from enum import StrEnum

from extsloader.model.ids import ServiceName
from extsloader.model.reasons import Code, Problem
from extsloader.model.trust import Flag, Release

DAMAGED = "damaged"
"""Phase of a mounted image of which dm-verity has met a bad block."""


class AgentState(StrEnum):
    """State of the whole. Never ready because nothing was checked."""

    DISABLED = "disabled"
    SEARCHING = "searching"
    VERIFYING = "verifying"
    ACTIVATING = "activating"
    READY = "ready"
    DEGRADED = "degraded"
    FAILED = "failed"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a service uses now; None where the kernel does not say."""

    memory: int | None = None  # bytes
    cpu_seconds: float | None = None
    pids: int | None = None
    oom_kills: int | None = None
    frozen: bool | None = None  # by another program: we never do


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLimits:
    """The limits that hold, after defaults."""

    memory: int
    swap: int
    cpu_weight: int
    cpu_quota: float | None
    pids: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStatus:
    """One service. `state` is a phase of the supervision table, or "blocked" or "skipped"."""

    name: ServiceName
    state: str
    reason: str = ""
    code: Code | None = None
    hint: str = ""
    outlook: str = ""  # for how long it has waited, and what will happen then
    waiting_for: tuple[ServiceName, ...] = ()
    pid: int | None = None
    restarts: int = 0
    since: float = 0.0  # wall clock, seconds since 1970
    retry_in: float | None = None  # seconds at the time of the last step
    essential: bool = False
    reduced: tuple[str, ...] = ()
    last_exit: str = ""
    limits: ServiceLimits | None = None
    usage: Usage | None = None
    requires: tuple[ServiceName, ...] = ()
    wants: tuple[ServiceName, ...] = ()
    after: tuple[ServiceName, ...] = ()
    conflicts: tuple[ServiceName, ...] = ()
    stage: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateStatus:
    """One place where an image was looked for, and the verdict."""

    device: str
    file: str = ""  # the image in the device's file system, where it is one
    generation: str
    verdict: str  # probing, ignored, verifying, retrying, refused, verified
    code: Code | None = None
    reason: str = ""
    hint: str = ""
    progress: float | None = None  # 0..1 while copying
    size: int = 0
    present: bool = True
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageStatus:
    """The active image."""

    name: str
    version: str
    sequence: int
    digest: str
    source: str  # where it came from: "/dev/sdb", or "/dev/sdb1:rootfs-pkgs.img"
    source_present: bool
    integrity: str  # "store": copied while hashing, used from there; "verity": each read checked
    phase: str
    measured: bool = False  # the TPM's PCR 12 has it
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentStatus:
    """The agent itself."""

    version: str
    pid: int
    started: float
    rss: int | None = None  # bytes; read when asked
    stuck_helpers: int = 0  # killed, but in a read that the kernel does not end


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviousRun:
    """How the run of the agent before this one ended."""

    ended: str  # "stopped", "handed-over", "crashed", "power-lost", "unknown"
    message: str
    started: float = 0.0
    last_sign: float = 0.0  # wall clock of the last thing that is known of it
    last_error: str = ""  # the newest change that had a code


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusSnapshot:
    """Computed from the newest world when somebody asks; socket and tools all show this one."""

    schema: int = 1
    generation: int = 0
    state: AgentState = AgentState.SEARCHING
    reason: str = ""
    since: float = 0.0
    image: ImageStatus | None = None
    services: tuple[ServiceStatus, ...] = ()
    candidates: tuple[CandidateStatus, ...] = ()
    floors: tuple[Release, ...] = ()  # nothing lower is accepted
    flags: tuple[Flag, ...] = ()  # what is not as it should be and stops nothing
    problems: tuple[Problem, ...] = ()  # of no candidate or service: what could not be (un)done
    agent: AgentStatus | None = None
    previous_run: PreviousRun | None = None  # None: there was none


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change of state, as the journal and `/v1/events` show it."""

    id: int = 0  # counts up from the oldest one that was remembered when the agent started
    wall: float = 0.0
    subject: str  # "agent", "candidate /dev/sdb1", "image 0123456789ab", "service mosquitto"
    old: str
    new: str
    reason: str = ""
    code: Code | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """From the symptom of one service to its root cause."""

    service: ServiceName
    summary: str  # one sentence
    steps: tuple[str, ...] = ()  # symptom first, root cause last
    root: ServiceName  # the service at the bottom of it
    log: tuple[str, ...] = ()  # its last lines, oldest first, while it is not well
    history: tuple[Change, ...] = ()  # of the service, oldest first, also from before a reboot
    next_step: str = ""  # what the operator can do
