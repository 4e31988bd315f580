"""Facts. They are the only way into the core; an adapter or the executor reports each once."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from extsloader.model.control import Verb
from extsloader.model.ids import Digest, ServiceName, SourceId
from extsloader.model.machine import Load
from extsloader.model.manifest import StoredImage
from extsloader.model.plan import Bundle
from extsloader.model.reasons import Problem
from extsloader.model.settings import Settings
from extsloader.model.source import Source, Superblock


class TimerKind(StrEnum):
    """What a timer is for."""

    CHOOSE = "choose"  # stop waiting for other candidates
    RETRY = "retry"  # a candidate's next try
    BACK_OFF = "back-off"  # a service's next start
    CHECK = "check"  # the next readiness check
    DELAY = "delay"  # readiness by delay
    READINESS = "readiness"  # too late to become ready
    GRACE = "grace"  # too late to stop politely
    IMAGE = "image"  # the next look at the active image
    SAVE = "save"  # write the history
    RECONCILE = "reconcile"  # look at everything, whether or not something was reported
    PROBATION = "probation"  # the active image has run well for long enough
    CLOCK = "clock"  # the next time to remember what time it is
    HEALTH = "health"  # a service's next probe
    BUDGET = "budget"  # the next restart of any service
    ADMIT = "admit"  # the next look at the device's free memory


@dataclass(frozen=True, slots=True)
class TimerId:
    """At most one timer of a kind runs for a subject; setting it again moves it."""

    kind: TimerKind
    subject: ServiceName | SourceId | None = None


class CauseKind(StrEnum):
    """How a service ended."""

    CODE = "code"
    SIGNAL = "signal"
    OOM = "out-of-memory"
    LOST = "lost"  # its supervisor died, the exit code with it


@dataclass(frozen=True, slots=True)
class Cause:
    """How a service ended; `number` is the exit code or the signal."""

    kind: CauseKind
    number: int = 0

    def __str__(self) -> str:
        match self.kind:
            case CauseKind.CODE:
                return f"exit code {self.number}"
            case CauseKind.SIGNAL:
                return f"signal {self.number}"
            case CauseKind.OOM:
                return "a kill for lack of memory"
            case CauseKind.LOST:
                return "an unknown exit code, as its supervisor conmon was gone"


@dataclass(frozen=True, slots=True)
class AgentStarted:
    """The first event: providers report already, nothing has been listed yet."""

    providers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SourceSeen:
    """A medium is there (again, or with changed facts)."""

    source: Source


@dataclass(frozen=True, slots=True)
class SourceGone:
    """The medium at this path is not there any more, whatever its generation was."""

    path: str


@dataclass(frozen=True, slots=True)
class SourcesListed:
    """All that a provider has now: what it had before and is missing here is gone."""

    provider: str
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class EventsLost:
    """The kernel's queue overran (ENOBUFS): only a new listing tells the truth."""

    provider: str


@dataclass(frozen=True, slots=True)
class Probed:
    """The superblock was read."""

    source: SourceId
    superblock: Superblock


@dataclass(frozen=True, slots=True)
class VerifyProgressed:
    """So many bytes of the image are copied and hashed."""

    source: SourceId
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Verified:
    """The helper vouches for the image, and the store holds its bytes."""

    source: SourceId
    image: StoredImage


@dataclass(frozen=True, slots=True)
class Refused:
    """Probing or verification ended with a reason, the helper's end or its deadline included."""

    source: SourceId
    problem: Problem


@dataclass(frozen=True, slots=True)
class ImageMounted:
    """The image is mounted and its bundles are read; bundle problems name the service."""

    digest: Digest
    mountpoint: str
    bundles: tuple[Bundle, ...]
    problems: tuple[tuple[ServiceName, Problem], ...] = ()
    existing: frozenset[str] = frozenset()  # of the paths that conditions ask for


@dataclass(frozen=True, slots=True)
class ImageFailed:
    """The image could not be mounted; everything half done is undone."""

    digest: Digest
    problem: Problem


@dataclass(frozen=True, slots=True)
class ImageUnmounted:
    """The image is gone from the mount table; `problem` says what stayed behind, if anything."""

    digest: Digest
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class ImageChecked:
    """What has been read of the image was good, unless `problem` says otherwise.

    With E_VERITY it was not; with another code that could not be found out.
    """

    digest: Digest
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class ServiceCreated:
    """The container exists and waits for its start, or runs already (`running`): adopted.

    `ready`: it has sent READY=1 to an earlier agent, and will not send it again.
    """

    service: ServiceName
    run: int
    pid: int
    running: bool = False
    ready: bool = False
    reduced: tuple[str, ...] = ()  # limits that the kernel could not honour
    load: Load | None = None  # read when the container was made


@dataclass(frozen=True, slots=True)
class ServiceStarted:
    """The first instruction of the service was executed."""

    service: ServiceName
    run: int


@dataclass(frozen=True, slots=True)
class ServiceNotified:
    """The service sent READY=1 (sd_notify(3))."""

    service: ServiceName
    run: int


@dataclass(frozen=True, slots=True)
class ServiceChecked:
    """One readiness check or health probe ended."""

    service: ServiceName
    run: int
    ready: bool
    detail: str = ""
    hopeless: bool = False  # asking again cannot change the answer


@dataclass(frozen=True, slots=True)
class ServiceExited:
    """The service's main process ended."""

    service: ServiceName
    run: int
    cause: Cause


@dataclass(frozen=True, slots=True)
class ServiceFailed:
    """Creating or starting it failed; what was half made is undone by the removal that follows."""

    service: ServiceName
    run: int
    problem: Problem


@dataclass(frozen=True, slots=True)
class ServiceRemoved:
    """Container and cgroup are gone; `problem` says what stayed behind, if anything."""

    service: ServiceName
    run: int
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class LoadRead:
    """What the device has left now; None: it could not be found out."""

    load: Load | None


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A timer that the core had set has run out."""

    timer: TimerId


@dataclass(frozen=True, slots=True)
class StopAsked:
    """The agent shall stop its services and end (SIGTERM); a second time: at once."""


@dataclass(frozen=True, slots=True)
class HandOverAsked:
    """The agent shall make room for another one, and its services shall run on (SIGUSR2)."""


@dataclass(frozen=True, slots=True)
class Asked:
    """An operator wants something; `request` is the number to answer to, 0 for a signal."""

    verb: Verb
    uid: int
    service: str = ""
    request: int = 0


@dataclass(frozen=True, slots=True)
class PillarHeard:
    """EVE's configuration says that just these services shall not run, and why."""

    held: Mapping[ServiceName, str]


@dataclass(frozen=True, slots=True)
class SettingsLoaded:
    """The configuration was read anew, and is good."""

    settings: Settings


@dataclass(frozen=True, slots=True)
class SettingsRefused:
    """It was read anew, and is not good, or could not be read: all of its problems."""

    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ListingFailed:
    """What a provider has now could not be found out."""

    provider: str
    problem: Problem


@dataclass(frozen=True, slots=True)
class HistorySaved:
    """The history is on the disk, or `problem` says why not."""

    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class EffectFailed:
    """An order that nobody waits for failed: it is told, and the daemon lives on."""

    problem: Problem


Event = (
    AgentStarted
    | SourceSeen
    | SourceGone
    | SourcesListed
    | ListingFailed
    | EventsLost
    | Probed
    | VerifyProgressed
    | Verified
    | Refused
    | ImageMounted
    | ImageFailed
    | ImageUnmounted
    | ImageChecked
    | ServiceCreated
    | ServiceStarted
    | ServiceNotified
    | ServiceChecked
    | ServiceExited
    | ServiceFailed
    | ServiceRemoved
    | LoadRead
    | TimerFired
    | StopAsked
    | HandOverAsked
    | Asked
    | PillarHeard
    | SettingsLoaded
    | SettingsRefused
    | HistorySaved
    | EffectFailed
)
