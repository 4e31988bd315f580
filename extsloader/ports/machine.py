"""Protocols between the runtime and the adapters."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from extsloader.model.events import Cause, Event
from extsloader.model.history import History
from extsloader.model.ids import Digest, ServiceName
from extsloader.model.machine import Load
from extsloader.model.manifest import Readiness, Resources, Service, StoredImage
from extsloader.model.plan import Bundle, ContainerPlan, MountStep
from extsloader.model.settings import Settings
from extsloader.model.source import Source, Superblock
from extsloader.model.status import Usage
from extsloader.model.trust import Bounds, Memory
from extsloader.ports.state import StatePort

Emit = Callable[[Event], None]
"""Puts one event into the inbox; never blocks, to be called on the loop's thread only."""


class SourcePort(Protocol):
    """One provider of sources: block devices, or files in directories."""

    provider: str

    def start(self, emit: Emit) -> None:
        """Begin to report on the running loop, before the first listing. Raises MachineError."""

    def list_sources(self) -> tuple[Source, ...]:
        """All sources that are there now. Raises MachineError."""

    def close(self) -> None:
        """Stop reporting and free the descriptors."""


class VerifierPort(Protocol):
    """Runs short-lived helpers; cancelling the call kills the helper and reaps it."""

    def stuck(self) -> int:
        """How many helpers hang in the kernel; with eight of them no other one is started."""

    async def probe(self, source: Source) -> Superblock:
        """Read the superblock. Raises ImageRefusedError (deadline and helper death included)."""

    async def verify(
        self, source: Source, bounds: Bounds, progress: Callable[[int, int], None]
    ) -> tuple[StoredImage, int]:
        """Verify and store. Returns the image and a read-only descriptor of the stored file.

        The caller owns the descriptor. `progress` gets bytes done and in all.
        Raises ImageRefusedError.
        """


class MountPort(Protocol):
    """Mounts. Every call blocks and is safe to repeat: done twice is done once."""

    def mount_image(self, image: StoredImage, descriptor: int, *, verity: bool = False) -> str:
        """Loop device on the descriptor, squashfs `ro,nosuid,nodev`; returns the mount point.

        `verity`: with dm-verity between them, by the signed parameters.
        Raises MachineError, with everything half done undone; E_VERITY for bad blocks.
        """

    def check_image(self, digest: Digest) -> None:
        """Whether dm-verity has met a bad block since the mount.

        Raises MachineError: E_VERITY when it has, another code when that cannot be found out.
        """

    def unmount_image(self, digest: Digest) -> None:
        """Undo `mount_image`; the loop device goes with it. Raises MachineError."""

    def apply(self, steps: tuple[MountStep, ...]) -> None:
        """Do the steps in order; on failure undo those done. Raises MachineError."""

    def undo(self, steps: tuple[MountStep, ...]) -> None:
        """Undo the steps in reverse order, going on after a failure. Raises MachineError."""

    def sweep(self, keep: Digest) -> None:
        """Undo what an earlier agent mounted for other images, "" for all. Raises MachineError."""

    def find_services(self, mountpoint: str) -> tuple[Service, ...]:
        """Those whose bundles lie in the image, with defaults. Raises MachineError(E_BUNDLE)."""

    def read_bundle(self, mountpoint: str, service: Service) -> Bundle:
        """Read a bundle's two files without following links. Raises MachineError(E_BUNDLE)."""


class CgroupPort(Protocol):
    """Control groups of one parent; a call takes about a millisecond, `remove` up to a second."""

    def open_parent(self) -> tuple[str, ...]:
        """Make the parent group with its aggregate limits; returns what could not be granted."""

    def close_parent(self) -> None:
        """Remove the parent if nothing is left in it. Raises MachineError."""

    def create(self, service: ServiceName, resources: Resources) -> tuple[str, ...]:
        """Make the group and set its limits; returns what could not be granted, in sentences."""

    def usage(self, service: ServiceName) -> Usage:
        """What the service uses now; all None where there is no group."""

    def kill(self, service: ServiceName) -> None:
        """SIGKILL every process in the group, also those that fork meanwhile."""

    def remove(self, service: ServiceName) -> None:
        """Remove the group and groups below it. Raises MachineError when processes are left.

        May wait a second for killed processes to end: not for the loop's thread.
        """


class RuntimePort(Protocol):
    """Containers, created and started apart so that creation can run ahead of dependencies."""

    def start_watching(self, on_exit: Callable[[ServiceName, int, Cause], None]) -> None:
        """Report each end of a service once, with the pid that `create` gave.

        Also the end of one that was killed before its start, but of none that was deleted.
        """

    async def find_end(self, plan: ContainerPlan) -> Cause | None:
        """How a container of an earlier agent and the same image ended while nobody watched.

        None for one that runs, was never started, or is not there. Deleting it forgets its end.
        """

    async def create(self, plan: ContainerPlan) -> tuple[int, bool]:
        """Create the container; returns its pid and whether it runs already (adopted).

        Only a running one of the same image is adopted; any other is replaced.
        Raises MachineError.
        """

    def call_off(self, service: ServiceName) -> None:
        """Let a `create` that waits for the runtime fail if it does not end within a moment.

        Nothing where there is none: one that adopts is never called off.
        """

    async def start(self, service: ServiceName) -> None:
        """Let the created container execute its first instruction. Raises MachineError."""

    def signal(self, service: ServiceName, name: str) -> None:
        """Send a signal ("SIGTERM") to the main process; no error when it is gone."""

    async def delete(self, service: ServiceName) -> None:
        """Delete the container and its files; no error when there is none. Raises MachineError."""

    async def leftovers(self, keep: Digest) -> tuple[ServiceName, ...]:
        """Services of other images that an earlier agent created and nobody has deleted.

        Raises MachineError.
        """

    def close(self) -> None:
        """Stop watching; running containers go on."""


class LogPort(Protocol):
    """Where the output of services goes. Nothing of it needs the agent while a service runs."""

    def pass_on(self, service: ServiceName, output: int, errors: int) -> bool:
        """Give away the reading ends of both streams; False where nobody takes them.

        The caller closes its own copies. Never blocks. Raises OSError for the service's old files.
        """

    def make_room(self, service: ServiceName) -> tuple[str, int]:
        """The service's file, to append to, and how many bytes it may take. Raises OSError."""


class ReadinessPort(Protocol):
    """Single readiness checks; repeating them is the core's decision."""

    def listen(
        self,
        service: ServiceName,
        directory: str,
        on_ready: Callable[[], None],
        *,
        again: bool = False,
    ) -> bool:
        """Open `<directory>/notify` and report the first READY=1 (sd_notify(3)).

        `again`: for a run that an earlier agent listened to; returns whether that one heard it.
        Raises MachineError.
        """

    async def check(
        self, plan: ContainerPlan, readiness: Readiness, pid: int, deadline: float
    ) -> tuple[bool, str]:
        """One check of so many seconds at most: ready or not, and why not.

        Raises MachineError(E_READINESS) where asking again cannot change the answer.
        """

    def forget(self, service: ServiceName) -> None:
        """Close what `listen` opened."""


class RegisterPort(Protocol):
    """The TPM's register for images, and the log beside it. Every call blocks, with a deadline."""

    @property
    def boot(self) -> str:
        """Random id of this boot: the register forgets with it."""

    def read(self) -> bytes:
        """Its value. Raises MachineError."""

    def extend(self, digest: bytes) -> None:
        """Not to be repeated: it is extended each time. Raises MachineError: it may have been."""

    def read_log(self) -> bytes:
        """What was written last, nothing if nothing was. Raises MachineError."""

    def write_log(self, raw: bytes) -> None:
        """Replace it whole: the death of the agent leaves the old one or the new one.

        Raises MachineError.
        """


class ImageStorePort(Protocol):
    """Housekeeping of the store."""

    def drop(self, digest: Digest) -> None:
        """Delete one image; no error when it is gone. Raises MachineError."""


class DevicePort(Protocol):
    """What the device is like now. Neither call raises."""

    def find_existing(self, paths: Iterable[str]) -> frozenset[str]:
        """Those that exist. May hang with a file system: not for the loop's thread."""

    def read_load(self) -> Load | None:
        """Memory and pressure, or None where the kernel does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """All that may be asked of the machine."""

    sources: Mapping[str, SourcePort]
    verifier: VerifierPort
    mounts: MountPort
    cgroups: CgroupPort
    runtime: RuntimePort
    readiness: ReadinessPort
    store: ImageStorePort
    history: StatePort[History]
    load_settings: Callable[[], Settings]  # blocks; raises SettingsError
    read_revoked: Callable[[], frozenset[Digest]]  # images; raises MachineError
    memory: tuple[StatePort[Memory], ...]  # copies; each write goes to all of them
    seal: StatePort[Memory] | None  # a copy that cannot be changed offline
    register: RegisterPort | None = None  # without a TPM nothing is measured
    clock: StatePort[float]  # seconds since 1970
    device: DevicePort
