"""One machine in memory behind all ports, with knobs that tests turn and a log of calls."""

import asyncio
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from signal import SIGKILL, Signals
from typing import TypeVar

import msgspec

from extsloader.core import floor
from extsloader.model.errors import ImageRefusedError, MachineError, SettingsError
from extsloader.model.events import (
    Cause,
    CauseKind,
    EventsLost,
    SourceGone,
    SourceSeen,
)
from extsloader.model.history import History
from extsloader.model.ids import Digest, ServiceName, SourceId, short
from extsloader.model.machine import Load
from extsloader.model.manifest import ProbeKind, Readiness, Resources, Service, StoredImage
from extsloader.model.plan import Bundle, ContainerPlan, MountKind, MountStep
from extsloader.model.reasons import Code, Problem
from extsloader.model.settings import Settings
from extsloader.model.source import Source, Superblock
from extsloader.model.status import Usage
from extsloader.model.trust import Bounds, Memory
from extsloader.ports.machine import Emit, Ports
from extsloader.ports.state import Loaded
from extsloader.runtime.memory_work import decode_clock, decode_memory
from tests.fakes.register import FakeRegister
from tests.fakes.state import FakeState

Found = TypeVar("Found")

CONFIG = json.dumps(
    {
        "ociVersion": "1.0.2",
        "process": {"args": ["/bin/x"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
        "root": {"path": "rootfs"},
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]},
    }
)


@dataclass(kw_only=True)
class Medium:
    """What a helper would find in a source."""

    source: Source
    superblock: Superblock | Problem
    verdict: StoredImage | Problem
    held: asyncio.Event = field(default_factory=asyncio.Event)  # clear: the helper hangs

    def __post_init__(self) -> None:
        self.held.set()


@dataclass(kw_only=True)
class Behaviour:
    """How a service of this machine behaves."""

    create_fails: Problem | None = None
    start_fails: Problem | None = None
    delete_fails: Problem | None = None
    exits: Cause | None = None  # at once after its start
    ready: bool = True  # what a check says
    deaf: bool = False  # ignores every signal but SIGKILL
    unreadable: bool = False
    config: str = CONFIG
    no_command: bool = False  # what exec asks for is not there


class FakeMachine:
    """Sources, helpers, mounts and services that exist only here."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.media: dict[SourceId, Medium] = {}
        self.gone: set[SourceId] = set()  # media that were there once
        self.helpers = 0  # at work now
        self.stored: set[Digest] = set()
        self.behaviours: dict[str, Behaviour] = {}
        self.mounted: dict[Digest, str] = {}
        self.applied: list[MountStep] = []
        self.unmountable: set[str] = set()  # targets of steps that fail
        self.busy: set[str] = set()  # targets that cannot be unmounted
        self.groups: set[str] = set()
        self.containers: dict[str, int] = {}
        self.origins: dict[str, Digest] = {}  # the image that a container was made from
        self.running: set[str] = set()
        self.ends: dict[str, Cause] = {}  # of containers that had run and were not deleted
        self.ended: set[str] = set()  # containers whose end was reported
        self.services: tuple[Service, ...] = ()  # that lie in an image
        self.mount_fails: Problem | None = None
        self.verity: set[Digest] = set()  # images that are watched by dm-verity
        self.damaged: set[Digest] = set()  # of which a bad block was read
        self.pid = 1000
        self.paths: set[str] = set()  # that exist on the device
        self.load: Load | None = None
        self.history: list[bytes] = []  # generations of the state file, the newest last
        self.settings: Settings | tuple[str, ...] = Settings()  # or what is wrong with them
        self.revoked: set[Digest] = set()  # in the policy beside the keys
        self.policy_fails: MachineError | None = None
        self.history_fails: Problem | None = None
        self.emit: Emit = lambda _event: None
        self.on_exit: Callable[[ServiceName, int, Cause], None] = lambda *_: None
        self.notifiers: dict[str, Callable[[], None]] = {}
        self.memory = (FakeState(decode_memory), FakeState(decode_memory))
        self.seal: FakeState[Memory] | None = None
        self.register: FakeRegister | None = None
        self.clock = FakeState(decode_clock)
        self.heard: set[str] = set()  # whose READY=1 an agent has heard
        self.frozen: set[str] = set()  # paused by another program

    def ports(self) -> Ports:
        sources = FakeSources(self)
        return Ports(
            sources={"udev": sources},
            verifier=FakeVerifier(self),
            mounts=FakeMounts(self),
            cgroups=FakeCgroups(self),
            runtime=FakeRuntime(self),
            readiness=FakeReadiness(self),
            store=FakeStore(self),
            history=FakeHistory(self),
            load_settings=self.load_settings,
            read_revoked=self.read_revoked,
            memory=self.memory,
            seal=self.seal,
            register=self.register,
            clock=self.clock,
            device=FakeDevice(self),
        )

    def load_settings(self) -> Settings:
        if isinstance(self.settings, Settings):
            return self.settings
        raise SettingsError(self.settings)

    def read_revoked(self) -> frozenset[Digest]:
        if self.policy_fails:
            raise self.policy_fails
        return frozenset(self.revoked)

    def log(self, *words: object) -> None:
        self.calls.append(" ".join(str(word) for word in words))

    def behave(self, service: str) -> Behaviour:
        return self.behaviours.setdefault(service, Behaviour())

    def plug(self, medium: Medium) -> None:
        """A medium is there, and one that was in its place is not."""
        self._take_away(medium.source.id.path)
        self.gone.discard(medium.source.id)
        self.media[medium.source.id] = medium
        self.emit(SourceSeen(medium.source))

    def pull(self, path: str) -> None:
        self._take_away(path)
        self.emit(SourceGone(path))

    def _take_away(self, path: str) -> None:
        self.gone.update(id_ for id_ in self.media if id_.path == path)

    def lose_events(self) -> None:
        self.emit(EventsLost("udev"))

    def end(self, service: str, cause: Cause) -> None:
        """The main process of the service ends, started or not."""
        if self.is_alive(service):
            if service in self.running:
                self.ends[service] = cause
            self.running.discard(service)
            self.ended.add(service)
            self.on_exit(ServiceName(service), self.containers[service], cause)

    def is_alive(self, service: str) -> bool:
        return service in self.containers and service not in self.ended

    def forget(self, service: str) -> None:
        """Its container is deleted, and its end is nobody's business."""
        self.running.discard(service)
        self.ended.discard(service)
        self.ends.pop(service, None)
        self.containers.pop(service, None)

    def notify(self, service: str) -> None:
        """The service says READY=1; only the first time is passed on."""
        if on_ready := self.notifiers.pop(service, None):
            self.heard.add(service)
            on_ready()

    def is_clean(self) -> bool:
        left = (self.mounted, self.applied, self.groups, self.containers, self.running)
        return not any(left)


class FakeSources:
    provider = "udev"

    def __init__(self, machine: FakeMachine) -> None:
        self._machine = machine

    def start(self, emit: Emit) -> None:
        self._machine.emit = emit

    def list_sources(self) -> tuple[Source, ...]:
        self._machine.log("list")
        media, gone = self._machine.media, self._machine.gone
        return tuple(medium.source for id_, medium in media.items() if id_ not in gone)

    def close(self) -> None:
        self._machine.emit = lambda _event: None


class FakeVerifier:
    def __init__(self, machine: FakeMachine) -> None:
        self._machine = machine

    def stuck(self) -> int:
        return 0

    async def probe(self, source: Source) -> Superblock:
        self._machine.log("probe", source.id)
        self._refuse_gone(source)
        return _give(self._machine.media[source.id].superblock)

    async def verify(
        self, source: Source, bounds: Bounds, progress: Callable[[int, int], None]
    ) -> tuple[StoredImage, int]:
        self._machine.log("verify", source.id)
        self._refuse_gone(source)
        medium = self._machine.media[source.id]
        self._machine.helpers += 1
        try:
            progress(0, source.size)
            await medium.held.wait()
        finally:
            self._machine.helpers -= 1
        self._refuse_gone(source)
        image = _give(medium.verdict)
        held = floor.hold(bounds.memory, bounds.baked, image.key_epoch)
        if problem := floor.refuse(image.manifest, held.floors, held.accepted):
            _give(problem)
        self._machine.stored.add(image.digest)
        return image, os.open(os.devnull, os.O_RDONLY)

    def _refuse_gone(self, source: Source) -> None:
        if source.id in self._machine.gone:
            raise ImageRefusedError(Code.GONE, f"cannot read {source.id}: it is not there")


class FakeMounts:
    def __init__(self, machine: FakeMachine) -> None:
        self._machine = machine

    def mount_image(self, image: StoredImage, descriptor: int, *, verity: bool = False) -> str:
        os.fstat(descriptor)
        self._machine.log("mount", image.manifest.version)
        if self._machine.mount_fails is not None:
            raise _machine_error(self._machine.mount_fails)
        mounted = image.digest in self._machine.mounted
        if mounted and verity != (image.digest in self._machine.verity):
            raise MachineError(Code.MOUNT, "mount the image", "something else is mounted there")
        if verity:
            self._machine.verity.add(image.digest)
        return self._machine.mounted.setdefault(image.digest, f"/mnt/{image.digest}")

    def find_services(self, _mountpoint: str) -> tuple[Service, ...]:
        if not self._machine.services:
            raise MachineError(Code.BUNDLE, "read containers/services", "no such directory")
        return self._machine.services

    def check_image(self, digest: Digest) -> None:
        self._machine.log("check")
        if digest in self._machine.damaged:
            raise MachineError(Code.VERITY, f"trust the image {short(digest)}", "a bad block")
        if digest not in self._machine.verity:
            raise MachineError(Code.MOUNT, f"trust the image {short(digest)}", "not active")

    def unmount_image(self, digest: Digest) -> None:
        self._machine.log("unmount")
        self._machine.mounted.pop(digest, None)
        self._machine.verity.discard(digest)
        if any(short(digest) in step.target for step in self._machine.applied):
            raise MachineError(Code.MOUNT, "release the image", "mounts of its services hold it")

    def sweep(self, keep: Digest) -> None:
        self._machine.log("sweep")
        self._machine.mounted = {d: m for d, m in self._machine.mounted.items() if d == keep}
        self._machine.verity &= {keep}
        kept = [s for s in self._machine.applied if keep and short(keep) in s.target]
        self._machine.applied = kept

    def apply(self, steps: tuple[MountStep, ...]) -> None:
        before = list(self._machine.applied)
        for step in steps:
            if step.target in self._machine.unmountable:
                self._machine.applied = before
                raise MachineError(Code.MOUNT, f"mount on {step.target}", "no such device")
            if step not in self._machine.applied:
                self._machine.applied.append(step)

    def undo(self, steps: tuple[MountStep, ...]) -> None:
        for step in reversed(steps):
            if step in self._machine.applied and not self._is_in_use(step):
                self._machine.applied.remove(step)
        left = {step.target for step in steps if step in self._machine.applied}
        if busy := left & self._machine.busy:
            raise MachineError(Code.MOUNT, f"unmount {', '.join(sorted(busy))}", "in use")

    def _is_in_use(self, step: MountStep) -> bool:
        """A busy mount stays, and so does a directory that others still need."""
        below = any(s.target.startswith(f"{step.target}/") for s in self._machine.applied)
        return step.target in self._machine.busy or (step.kind is MountKind.MKDIR and below)

    def read_bundle(self, mountpoint: str, service: Service) -> Bundle:
        mounted = mountpoint in self._machine.mounted.values()
        if not mounted or self._machine.behave(service.name).unreadable:
            raise MachineError(Code.BUNDLE, f"read the bundle of {service.name}", "a link")
        return Bundle(
            service=service.name, config=self._machine.behave(service.name).config, runtime=""
        )


class FakeCgroups:
    def __init__(self, machine: FakeMachine) -> None:
        self._machine = machine

    def open_parent(self) -> tuple[str, ...]:
        return ()

    def close_parent(self) -> None:
        if self._machine.groups:
            raise MachineError(Code.BUSY, "remove the parent group", "it still holds groups")

    def create(self, service: ServiceName, resources: Resources) -> tuple[str, ...]:
        assert resources.memory, "defaults must be filled in"
        self._machine.groups.add(service)
        return ()

    def usage(self, service: ServiceName) -> Usage:
        if service not in self._machine.groups:
            return Usage()
        pids = int(self._machine.is_alive(service))
        frozen = service in self._machine.frozen
        return Usage(memory=MEMORY, cpu_seconds=0.0, pids=pids, oom_kills=0, frozen=frozen)

    def kill(self, service: ServiceName) -> None:
        self._machine.log("kill", service)
        self._machine.end(service, Cause(CauseKind.SIGNAL, 9))

    def remove(self, service: ServiceName) -> None:
        if self._machine.is_alive(service):
            raise MachineError(Code.BUSY, f"remove the group of {service}", "processes are in it")
        self._machine.groups.discard(service)


class FakeHistory:
    def __init__(self, machine: FakeMachine) -> None:
        self._machine = machine

    def read(self) -> Loaded[History]:
        written = self._machine.history[-1:]
        return Loaded(value=msgspec.json.decode(written[0], type=History) if written else None)

    def write(self, payload: bytes) -> None:
        _fail(self._machine.history_fails)
        self._machine.history.append(payload)


MEMORY = 4096


class FakeRuntime:
    def __init__(self, machine: FakeMachine) -> None:
        self._machine = machine

    def start_watching(self, on_exit: Callable[[ServiceName, int, Cause], None]) -> None:
        self._machine.on_exit = on_exit

    async def find_end(self, plan: ContainerPlan) -> Cause | None:
        ours = self._machine.origins.get(plan.service, plan.digest) == plan.digest
        return self._machine.ends.get(plan.service) if ours else None

    async def create(self, plan: ContainerPlan) -> tuple[int, bool]:
        self._machine.log("create", plan.service)
        ours = self._machine.origins.get(plan.service) == plan.digest
        if plan.service in self._machine.running and ours:
            return self._machine.containers[plan.service], True
        self._machine.forget(plan.service)
        _fail(self._machine.behave(plan.service).create_fails)
        self._machine.pid += 1
        self._machine.containers[plan.service] = self._machine.pid
        self._machine.origins[plan.service] = plan.digest
        return self._machine.pid, False

    def call_off(self, service: ServiceName) -> None:
        self._machine.log("call off", service)

    async def start(self, service: ServiceName) -> None:
        self._machine.log("start", service)
        behaviour = self._machine.behave(service)
        _fail(behaviour.start_fails)
        if not self._machine.is_alive(service) or service in self._machine.running:
            raise MachineError(Code.RUNTIME, f"start container {service}", "it is not created")
        self._machine.running.add(service)
        if behaviour.exits is not None:
            self._machine.end(service, behaviour.exits)

    def signal(self, service: ServiceName, name: str) -> None:
        self._machine.log("signal", service, name)
        number = Signals[name].value
        if number == SIGKILL or not self._machine.behave(service).deaf:
            self._machine.end(service, Cause(CauseKind.SIGNAL, number))

    async def leftovers(self, keep: Digest) -> tuple[ServiceName, ...]:
        origins = self._machine.origins
        return tuple(ServiceName(n) for n in self._machine.containers if origins.get(n) != keep)

    async def delete(self, service: ServiceName) -> None:
        self._machine.log("delete", service)
        _fail(self._machine.behave(service).delete_fails)
        self._machine.forget(service)

    def close(self) -> None:
        self._machine.on_exit = lambda *_: None


class FakeReadiness:
    def __init__(self, machine: FakeMachine) -> None:
        self._machine = machine

    def listen(
        self,
        service: ServiceName,
        directory: str,
        on_ready: Callable[[], None],
        *,
        again: bool = False,
    ) -> bool:
        assert directory
        self._machine.notifiers[service] = on_ready
        if not again:
            self._machine.heard.discard(service)
        return service in self._machine.heard

    async def check(
        self, plan: ContainerPlan, readiness: Readiness, pid: int, deadline: float
    ) -> tuple[bool, str]:
        assert deadline > 0
        if pid != self._machine.containers.get(plan.service):
            return False, "its process is gone"
        if self._machine.behave(plan.service).no_command:
            raise MachineError(Code.READINESS, "run it", "no such file")
        if readiness.kind in (ProbeKind.NOTIFY, ProbeKind.DELAY):
            return False, f"{readiness.kind} is not found out by a check"
        ready = self._machine.behave(plan.service).ready
        return ready, "" if ready else f"{readiness.kind} says no"

    def forget(self, service: ServiceName) -> None:
        self._machine.notifiers.pop(service, None)
        self._machine.heard.discard(service)


class FakeDevice:
    def __init__(self, machine: FakeMachine) -> None:
        self._machine = machine

    def find_existing(self, paths: Iterable[str]) -> frozenset[str]:
        return frozenset(paths) & self._machine.paths

    def read_load(self) -> Load | None:
        return self._machine.load


class FakeStore:
    def __init__(self, machine: FakeMachine) -> None:
        self._machine = machine

    def drop(self, digest: Digest) -> None:
        self._machine.log("drop", digest)
        self._machine.stored.discard(digest)


def _give(found: Found | Problem) -> Found:
    if isinstance(found, Problem):
        raise ImageRefusedError(found.code, found.message, found.hint)
    return found


def _fail(problem: Problem | None) -> None:
    if problem is not None:
        raise _machine_error(problem)


def _machine_error(problem: Problem) -> MachineError:
    return MachineError(problem.code, "do it", problem.message, problem.hint)
