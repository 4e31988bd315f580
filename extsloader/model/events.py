"""Facts. They are the only way into the core; an adapter or the executor reports each once.

Structs, and so are the effects: Python makes each dataclass by running source that it generates,
0.3 ms of every start of the agent for each of 60. Nobody needs a changed copy of one.
"""

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

from extsloader.model.control import Verb
from extsloader.model.ids import Digest, ServiceName, SourceId
from extsloader.model.machine import Load
from extsloader.model.manifest import Service, StoredImage
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
    MOUNT = "mount"  # the next try to mount an image
    SAVE = "save"  # write the history
    RECONCILE = "reconcile"  # look at everything, whether or not something was reported
    PROBATION = "probation"  # the active image has run well for long enough
    CLOCK = "clock"  # the next time to remember what time it is
    HEALTH = "health"  # a service's next probe
    BUDGET = "budget"  # the next restart of any service
    ADMIT = "admit"  # the next look at the device's free memory


class TimerId(Struct, frozen=True):
    """At most one timer of a kind runs for a subject; setting it again moves it."""

    kind: TimerKind
    subject: ServiceName | Digest | SourceId | None = None


class CauseKind(StrEnum):
    """How a service ended."""

    CODE = "code"
    SIGNAL = "signal"
    OOM = "out-of-memory"
    LOST = "lost"  # its supervisor died, the exit code with it


_SIGNALLED = 128  # a shell's convention, which conmon and containerd follow for signals
_LAST_SIGNAL = 64


class Cause(Struct, frozen=True):
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
                return "an unknown exit code, as its supervisor was gone"


def judge(code: int, *, oom: bool) -> Cause:
    """What an exit code means, of a service that had processes killed for lack of memory or not.

    One above 128 is a signal here: the two cannot be told apart. `oom` is also true when the main
    process survived such a kill: a clean exit (0) later is no out-of-memory.
    """
    if code != 0 and oom:
        return Cause(CauseKind.OOM)
    if _SIGNALLED < code <= _SIGNALLED + _LAST_SIGNAL:
        return Cause(CauseKind.SIGNAL, code - _SIGNALLED)
    return Cause(CauseKind.CODE, code)


class AgentStarted(Struct, frozen=True):
    """The first event: providers report already, nothing has been listed yet."""

    providers: tuple[str, ...]


class SourceSeen(Struct, frozen=True):
    """A medium is there (again, or with changed facts)."""

    source: Source


class SourceGone(Struct, frozen=True):
    """The medium at this path is not there any more, whatever its generation was."""

    path: str


class SourcesListed(Struct, frozen=True):
    """All that a provider has now: what it had before and is missing here is gone."""

    provider: str
    sources: tuple[Source, ...]


class EventsLost(Struct, frozen=True):
    """The kernel's queue overran (ENOBUFS): only a new listing tells the truth."""

    provider: str


class Probed(Struct, frozen=True):
    """The superblock was read."""

    source: SourceId
    superblock: Superblock


class VerifyProgressed(Struct, frozen=True):
    """So many bytes of the image are copied and hashed."""

    source: SourceId
    done: int
    total: int


class Verified(Struct, frozen=True):
    """The helper vouches for the image, and the store holds its bytes."""

    source: SourceId
    image: StoredImage


class Refused(Struct, frozen=True):
    """Probing or verification ended with a reason, the helper's end or its deadline included."""

    source: SourceId
    problem: Problem


class ImageMounted(Struct, frozen=True):
    """The image is mounted and its bundles are read; bundle problems name the service."""

    digest: Digest
    mountpoint: str
    bundles: tuple[Bundle, ...]
    problems: tuple[tuple[ServiceName, Problem], ...] = ()
    existing: frozenset[str] = frozenset()  # of the paths that conditions ask for
    found: tuple[Service, ...] = ()  # in an image whose manifest names none


class ImageFailed(Struct, frozen=True):
    """The image could not be mounted; everything half done is undone."""

    digest: Digest
    problem: Problem


class ImageUnmounted(Struct, frozen=True):
    """The image is gone from the mount table; `problem` says what stayed behind, if anything."""

    digest: Digest
    problem: Problem | None = None


class ImageChecked(Struct, frozen=True):
    """What has been read of the image was good, unless `problem` says otherwise.

    With E_VERITY it was not; with another code that could not be found out.
    """

    digest: Digest
    problem: Problem | None = None


class ImageMeasured(Struct, frozen=True):
    """The TPM's register has the image, unless `problem` says why not."""

    digest: Digest
    problem: Problem | None = None


class ServiceCreated(Struct, frozen=True):
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


class ServiceStarted(Struct, frozen=True):
    """The first instruction of the service was executed."""

    service: ServiceName
    run: int


class ServiceNotified(Struct, frozen=True):
    """The service sent READY=1 (sd_notify(3))."""

    service: ServiceName
    run: int


class ServiceChecked(Struct, frozen=True):
    """One readiness check or health probe ended."""

    service: ServiceName
    run: int
    ready: bool
    detail: str = ""
    hopeless: bool = False  # asking again cannot change the answer
    frozen: bool = False  # it cannot answer, and that is somebody's wish


class ServiceExited(Struct, frozen=True):
    """The service's main process ended."""

    service: ServiceName
    run: int
    cause: Cause


class ServiceFailed(Struct, frozen=True):
    """Creating or starting it failed; what was half made is undone by the removal that follows."""

    service: ServiceName
    run: int
    problem: Problem


class ServiceRemoved(Struct, frozen=True):
    """Container and cgroup are gone; `problem` says what stayed behind, if anything."""

    service: ServiceName
    run: int
    problem: Problem | None = None


class LoadRead(Struct, frozen=True):
    """What the device has left now; None: it could not be found out."""

    load: Load | None


class TimerFired(Struct, frozen=True):
    """A timer that the core had set has run out."""

    timer: TimerId


class StopAsked(Struct, frozen=True):
    """The agent shall stop its services and end (SIGTERM); a second time: at once."""


class HandOverAsked(Struct, frozen=True):
    """The agent shall make room for another one, and its services shall run on (SIGUSR2)."""


class Asked(Struct, frozen=True):
    """An operator wants something; `request` is the number to answer to, 0 for a signal."""

    verb: Verb
    uid: int
    service: str = ""
    request: int = 0


class PillarHeard(Struct, frozen=True):
    """EVE's configuration says that just these services shall not run, and why."""

    held: Mapping[ServiceName, str]


class SettingsLoaded(Struct, frozen=True):
    """The configuration was read anew, and is good."""

    settings: Settings
    revoked: frozenset[Digest] = frozenset()  # images, by the policy beside the keys


class SettingsRefused(Struct, frozen=True):
    """It was read anew, and is not good, or could not be read: all of its problems."""

    problems: tuple[str, ...]


class ListingFailed(Struct, frozen=True):
    """What a provider has now could not be found out."""

    provider: str
    problem: Problem


class HistorySaved(Struct, frozen=True):
    """The history is on the disk, or `problem` says why not."""

    problem: Problem | None = None


class EffectFailed(Struct, frozen=True):
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
    | ImageMeasured
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
