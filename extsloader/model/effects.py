"""Orders, the only way out of the core; each ends in the event that its docstring names."""

from dataclasses import dataclass, field

from extsloader.model.control import Answer
from extsloader.model.events import TimerId
from extsloader.model.history import History
from extsloader.model.ids import Digest, ServiceName, SourceId
from extsloader.model.manifest import Readiness, StoredImage
from extsloader.model.plan import ContainerPlan
from extsloader.model.source import Source
from extsloader.model.status import Change
from extsloader.model.trust import Bounds, Memory


@dataclass(frozen=True, slots=True)
class ListSources:
    """Enumerate anew: SourcesListed."""

    provider: str


@dataclass(frozen=True, slots=True)
class Probe:
    """Read the superblock in a helper: Probed or Refused."""

    source: Source


@dataclass(frozen=True, slots=True)
class Verify:
    """Verify and copy in a helper: VerifyProgressed*, then Verified or Refused."""

    source: Source
    bounds: Bounds = field(default_factory=Bounds)


@dataclass(frozen=True, slots=True)
class CancelHelper:
    """Kill the helper that works on this source; its own effect still ends, with Refused."""

    source: SourceId


@dataclass(frozen=True, slots=True)
class MountImage:
    """Loop, dm-verity, mount, read the bundles: ImageMounted or ImageFailed."""

    image: StoredImage
    verity: bool = False


@dataclass(frozen=True, slots=True)
class UnmountImage:
    """Undo MountImage, and when `drop`, delete the image from the store: ImageUnmounted."""

    digest: Digest
    drop: bool = False


@dataclass(frozen=True, slots=True)
class CheckImage:
    """Ask dm-verity whether what it has read so far was good: ImageChecked."""

    digest: Digest


@dataclass(frozen=True, slots=True)
class DropImage:
    """Delete an image that is not active from the store; no event."""

    digest: Digest


@dataclass(frozen=True, slots=True)
class CreateService:
    """Mounts, cgroup and container, not yet started: ServiceCreated or ServiceFailed.

    Or ServiceExited, when it has run under an earlier agent and ended while nobody watched.
    """

    plan: ContainerPlan
    run: int


@dataclass(frozen=True, slots=True)
class StartService:
    """Start the created container: ServiceStarted or ServiceFailed."""

    service: ServiceName
    run: int


@dataclass(frozen=True, slots=True)
class CheckReady:
    """One readiness check or health probe: ServiceChecked."""

    service: ServiceName
    run: int
    readiness: Readiness
    deadline: float = 2.0  # seconds


@dataclass(frozen=True, slots=True)
class SignalService:
    """Send a signal to the main process; its end is ServiceExited."""

    service: ServiceName
    run: int
    signal: str


@dataclass(frozen=True, slots=True)
class KillService:
    """SIGKILL everything in the service's cgroup; the end is ServiceExited."""

    service: ServiceName
    run: int


@dataclass(frozen=True, slots=True)
class RemoveService:
    """Delete container, cgroup and, when `unmount`, the mounts: ServiceRemoved."""

    plan: ContainerPlan
    run: int
    unmount: bool


@dataclass(frozen=True, slots=True)
class ReadLoad:
    """Find out what the device has left: LoadRead."""


@dataclass(frozen=True, slots=True)
class SetTimer:
    """TimerFired after so many seconds, unless set again or cancelled."""

    timer: TimerId
    delay: float


@dataclass(frozen=True, slots=True)
class CancelTimer:
    """Forget the timer, if it runs."""

    timer: TimerId


@dataclass(frozen=True, slots=True)
class SaveMemory:
    """Keep it across power cuts; no event."""

    memory: Memory


@dataclass(frozen=True, slots=True)
class SaveClock:
    """Keep the earliest believable time, seconds since 1970; no event."""

    clock: float


@dataclass(frozen=True, slots=True)
class Record:
    """Write one change of state to journal and event history; no event."""

    change: Change


@dataclass(frozen=True, slots=True)
class KeepSocket:
    """Make the status socket anew if somebody has removed it; no event."""


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """Read and check the configuration anew: SettingsLoaded or SettingsRefused."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Tell an operator what came of his request; no event."""

    request: int
    answer: Answer


@dataclass(frozen=True, slots=True)
class SaveHistory:
    """Write it to the disk: HistorySaved."""

    history: History


@dataclass(frozen=True, slots=True)
class Finish:
    """Everything is stopped and undone: the loop may end."""


Effect = (
    ListSources
    | Probe
    | Verify
    | CancelHelper
    | MountImage
    | UnmountImage
    | CheckImage
    | DropImage
    | CreateService
    | StartService
    | CheckReady
    | SignalService
    | KillService
    | RemoveService
    | ReadLoad
    | SetTimer
    | CancelTimer
    | SaveMemory
    | SaveClock
    | Record
    | KeepSocket
    | LoadSettings
    | Reply
    | SaveHistory
    | Finish
)
