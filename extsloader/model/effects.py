"""Orders, the only way out of the core; each ends in the event that its docstring names."""

from msgspec import Struct, field

from extsloader.model.control import Answer
from extsloader.model.events import TimerId
from extsloader.model.history import History
from extsloader.model.ids import Digest, ServiceName, SourceId
from extsloader.model.manifest import Readiness, StoredImage
from extsloader.model.plan import ContainerPlan
from extsloader.model.source import Source
from extsloader.model.status import Change
from extsloader.model.trust import Bounds, Memory


class ListSources(Struct, frozen=True):
    """Enumerate anew: SourcesListed."""

    provider: str


class Probe(Struct, frozen=True):
    """Read the superblock in a helper: Probed or Refused."""

    source: Source


class Verify(Struct, frozen=True):
    """Verify and copy in a helper: VerifyProgressed*, then Verified or Refused."""

    source: Source
    bounds: Bounds = field(default_factory=Bounds)


class CancelHelper(Struct, frozen=True):
    """Kill the helper that works on this source; its own effect still ends, with Refused."""

    source: SourceId


class MountImage(Struct, frozen=True):
    """Loop, dm-verity, mount, read the bundles: ImageMounted or ImageFailed."""

    image: StoredImage
    verity: bool = False


class UnmountImage(Struct, frozen=True):
    """Undo MountImage, and when `drop`, delete the image from the store: ImageUnmounted."""

    digest: Digest
    drop: bool = False


class CheckImage(Struct, frozen=True):
    """Ask dm-verity whether what it has read so far was good: ImageChecked."""

    digest: Digest


class MeasureImage(Struct, frozen=True):
    """Extend the TPM's register with it, once in a boot: ImageMeasured."""

    digest: Digest


class DropImage(Struct, frozen=True):
    """Delete an image that is not active from the store; no event."""

    digest: Digest


class CreateService(Struct, frozen=True):
    """Mounts, cgroup and container, not yet started: ServiceCreated or ServiceFailed.

    Or ServiceExited, when it has run under an earlier agent and ended while nobody watched.
    """

    plan: ContainerPlan
    run: int


class CallOffCreation(Struct, frozen=True):
    """Wait for a creation that is under way for a moment only; its own effect still ends."""

    service: ServiceName


class StartService(Struct, frozen=True):
    """Start the created container: ServiceStarted or ServiceFailed."""

    service: ServiceName
    run: int


class CheckReady(Struct, frozen=True):
    """One readiness check or health probe: ServiceChecked."""

    service: ServiceName
    run: int
    readiness: Readiness
    deadline: float = 2.0  # seconds


class SignalService(Struct, frozen=True):
    """Send a signal to the main process; its end is ServiceExited."""

    service: ServiceName
    run: int
    signal: str


class KillService(Struct, frozen=True):
    """SIGKILL everything in the service's cgroup; the end is ServiceExited."""

    service: ServiceName
    run: int


class RemoveService(Struct, frozen=True):
    """Delete container, cgroup and, when `unmount`, the mounts: ServiceRemoved."""

    plan: ContainerPlan
    run: int
    unmount: bool


class ReadLoad(Struct, frozen=True):
    """Find out what the device has left: LoadRead."""


class SetTimer(Struct, frozen=True):
    """TimerFired after so many seconds, unless set again or cancelled."""

    timer: TimerId
    delay: float


class CancelTimer(Struct, frozen=True):
    """Forget the timer, if it runs."""

    timer: TimerId


class SaveMemory(Struct, frozen=True):
    """Keep it across power cuts; no event."""

    memory: Memory


class SaveClock(Struct, frozen=True):
    """Keep the earliest believable time, seconds since 1970; no event."""

    clock: float


class Record(Struct, frozen=True):
    """Write one change of state to journal and event history; no event."""

    change: Change


class KeepSocket(Struct, frozen=True):
    """Make the status socket anew if somebody has removed it; no event."""


class LoadSettings(Struct, frozen=True):
    """Read configuration and revoked images anew: SettingsLoaded or SettingsRefused."""


class Reply(Struct, frozen=True):
    """Tell an operator what came of his request; no event."""

    request: int
    answer: Answer


class SaveHistory(Struct, frozen=True):
    """Write it to the disk: HistorySaved."""

    history: History


class Finish(Struct, frozen=True):
    """Everything is stopped and undone: the loop may end."""


Effect = (
    ListSources
    | Probe
    | Verify
    | CancelHelper
    | MountImage
    | UnmountImage
    | CheckImage
    | MeasureImage
    | DropImage
    | CreateService
    | CallOffCreation
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
