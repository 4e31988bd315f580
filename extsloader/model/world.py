"""All that the core knows, as one frozen value; a step makes the next one from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from extsloader.model.events import Cause
from extsloader.model.history import History
from extsloader.model.ids import Digest, ServiceName, SourceId
from extsloader.model.machine import Load, Machine
from extsloader.model.manifest import Service, StoredImage
from extsloader.model.measurement import Measuring
from extsloader.model.plan import ContainerPlan
from extsloader.model.reasons import Problem
from extsloader.model.settings import Settings
from extsloader.model.source import Source
from extsloader.model.status import PreviousRun
from extsloader.model.trust import Bounds


class CandidatePhase(StrEnum):
    """Where a source stands on its way to a verdict."""

    NEW = "new"  # waits for a free helper
    PROBING = "probing"
    IGNORED = "ignored"  # the filters leave it out
    QUEUED = "queued"  # admitted, waits for a free helper
    VERIFYING = "verifying"
    RETRYING = "retrying"  # a passing fault; a timer runs
    REFUSED = "refused"
    VERIFIED = "verified"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One source and its verdict. `present` is the other half of its state: phase x present."""

    source: Source
    phase: CandidatePhase = CandidatePhase.NEW
    present: bool = True
    called_off: bool = False  # its helper was: what that reports is about an earlier visit
    problem: Problem | None = None
    digest: Digest | None = None
    file: str = ""  # the image in the source's file system
    done: int = 0  # bytes copied
    total: int = 0
    tries: int = 0
    looks: tuple[float, ...] = ()  # at this place of late, on the clock of `Moment.now`


class ImagePhase(StrEnum):
    """Where a stored image stands."""

    STORED = "stored"
    MOUNTING = "mounting"
    MOUNTED = "mounted"
    UNMOUNTING = "unmounting"
    BROKEN = "broken"  # it could not be mounted; after a pause it is as good as any other


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A verified image in the store. Whether it is wanted follows from `World.active`."""

    stored: StoredImage
    source: SourceId  # where it was verified from
    phase: ImagePhase = ImagePhase.STORED
    problem: Problem | None = None
    failures: int = 0  # to mount it, in a row
    checking: bool = False  # dm-verity is being asked
    damage: Problem | None = None  # what it answered
    failed: bool = False  # it is left for another one
    measuring: Measuring = Measuring.NEVER
    unmeasured: Problem | None = None  # why the TPM's register does not have it


class ServicePhase(StrEnum):
    """Where a service stands; the table in `core.supervision` gives the moves."""

    IDLE = "idle"  # nothing of it exists
    CREATING = "creating"
    CREATED = "created"  # its container exists, its first instruction has not run
    STARTING = "starting"
    STARTED = "started"  # runs, not ready yet
    READY = "ready"
    STOPPING = "stopping"  # asked politely, grace time runs
    KILLING = "killing"
    REMOVING = "removing"
    BACKING_OFF = "backing-off"
    DUE = "due"  # the back-off is over; its mounts are there, its next run may begin
    PARKED = "parked"  # gave up; only a new wish starts it again
    FINISHED = "finished"  # did what it had to do and is not to be restarted


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceState:
    """One service of the active image."""

    spec: Service
    plan: ContainerPlan | None  # None: its bundle is unusable, `problem` says why
    users: tuple[ServiceName, ...] = ()  # services that need this one and stop before it
    yields_to: tuple[ServiceName, ...] = ()  # of those that it conflicts with
    rivals: tuple[ServiceName, ...] = ()  # all of those
    skipped: str = ""  # why it does not run on this device
    phase: ServicePhase = ServicePhase.IDLE
    run: int = 0  # counts creations; facts about an earlier run are stale
    restarts_before: int = 0  # under earlier agents
    pid: int | None = None
    since: float = 0.0  # wall clock at the last change of phase
    ready_at: float | None = None  # boot time at which the current run became ready
    ready_once: bool = False
    notified: bool = False  # READY=1 came before the start was confirmed
    ended: Cause | None = None  # it ended while an order was still in flight
    checks: int = 0  # readiness checks in this run
    detail: str = ""  # what the last readiness check said
    waiting_since: float = 0.0  # boot time at which the wait for readiness began
    unhealthy: int = 0  # health probes that failed in a row
    failures: int = 0  # in a row
    last_exit: Cause | None = None
    problem: Problem | None = None
    after_removal: ServicePhase = ServicePhase.IDLE
    retry_at: float = 0.0  # boot time of the next try
    granted: tuple[str, ...] = ()  # what the kernel reduced when limits were set


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Whether the device has room for one more start."""

    load: Load | None = None  # nobody has said: every start is admitted
    read_at: float = 0.0  # boot time
    asking: bool = False  # an answer is on its way
    refusal: Problem | None = None
    deferred: bool = False  # a start is put off, and a timer runs
    retry_at: float = 0.0  # boot time
    tries: int = 0  # in a row that found no room


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """Where the newest history stands on its way to the disk."""

    due: bool = False  # something changed since the last write began
    waiting: bool = False  # the timer runs
    writing: bool = False
    last: float = 0.0  # boot time of the last write's beginning
    problem: Problem | None = None  # why the last write failed


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Mappings are replaced, never changed in place."""

    settings: Settings
    machine: Machine
    history: History = field(default_factory=History)  # without what `services` knows better
    previous: PreviousRun | None = None
    safe: bool = False  # the agent has crashed again and again: only what is known to work
    saving: Saving = field(default_factory=Saving)
    providers: tuple[str, ...] = ()
    reloading: tuple[int, ...] | None = None  # who waits for the configuration that is being read
    not_in_force: tuple[str, ...] = ()  # settings that differ from the files until a restart
    settings_problem: Problem | None = None  # why the newest configuration was not taken
    awaited: frozenset[str] = frozenset()  # providers whose first listing is still to come
    candidates: Mapping[SourceId, Candidate] = field(default_factory=dict)
    images: Mapping[Digest, Image] = field(default_factory=dict)
    services: Mapping[ServiceName, ServiceState] = field(default_factory=dict)  # start order
    active: Digest | None = None
    bounds: Bounds = field(default_factory=Bounds)
    stale_memory: bool = False  # a copy of the memory is missing or differs
    sealed: bool = False  # the TPM has a copy of the memory
    measures: bool = False  # there is a TPM: no service starts before its image is measured
    on_probation: bool = False  # the active image runs well; a timer runs
    timed: tuple[float, float] | None = None  # boot time and wall clock at the last hourly look
    choosing: bool = False  # the timer that waits for other candidates runs
    overdue: bool = False  # it has run out: take the best there is
    held_by_pillar: Mapping[ServiceName, str] = field(default_factory=dict)  # and why
    admission: Admission = Admission()
    restarts_paid: float = 0.0  # boot time up to which the restarts so far use the budget
    budget_spent: bool = False  # a restart waits for the budget's timer
    stopping: bool = False
    handing_over: bool = False  # ends, and leaves services and mounts to its successor
    finished: bool = False
    leftovers: Mapping[str, Problem] = field(default_factory=dict)  # of what, not undone yet
    problems: tuple[Problem, ...] = ()  # what else went wrong and belongs to no subject
