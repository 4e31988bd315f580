"""One machine in memory behind all ports, with knobs that tests turn and a log of calls."""

import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from extsloader.model.errors import ImageRefusedError, MachineError
from extsloader.model.events import (
    Cause,
    CauseKind,
    EventsLost,
    SourceGone,
    SourceSeen,
)
from extsloader.model.ids import Digest, ServiceName, SourceId
from extsloader.model.manifest import Readiness, Resources, Service, StoredImage
from extsloader.model.plan import Bundle, ContainerPlan, MountStep
from extsloader.model.reasons import Code, Problem
from extsloader.model.source import Source, Superblock
from extsloader.model.status import Usage
from extsloader.ports.machine import Emit, Ports

Found = TypeVar("Found")

CONFIG = json.dumps(
    {
        "ociVersion": "1.0.2",
        "process": {"args": ["/bin/x"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
        "root": {"path": "rootfs"},
        "linux": {"namespaces": [{"type": "mount"}]},
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
    exits: Cause | None = None  # at once after its start
    ready: bool = True  # what a check says
    deaf: bool = False  # ignores SIGTERM
    unreadable: bool = False


class FakeMachine:
    """Sources, helpers, mounts and services that exist only here."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.media: dict[SourceId, Medium] = {}
        self.behaviours: dict[str, Behaviour] = {}
        self.mounted: dict[Digest, str] = {}
        self.applied: dict[str, tuple[MountStep, ...]] = {}
        self.groups: set[str] = set()
        self.containers: dict[str, int] = {}
        self.origins: dict[str, Digest] = {}  # the image that a container was made from
        self.running: set[str] = set()
        self.mount_fails: Problem | None = None
        self.pid = 1000
        self.emit: Emit = lambda _event: None
        self.on_exit: Callable[[ServiceName, int, Cause], None] = lambda *_: None
        self.notifiers: dict[str, Callable[[], None]] = {}

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
        )

    def log(self, *words: object) -> None:
        self.calls.append(" ".join(str(word) for word in words))

    def behave(self, service: str) -> Behaviour:
        return self.behaviours.setdefault(service, Behaviour())

    def plug(self, medium: Medium) -> None:
        """A medium is there; one that was in its place is still known to its helper."""
        self.media[medium.source.id] = medium
        self.emit(SourceSeen(medium.source))

    def pull(self, path: str) -> None:
        self.media = {id_: m for id_, m in self.media.items() if id_.path != path}
        self.emit(SourceGone(path))

    def lose_events(self) -> None:
        self.emit(EventsLost("udev"))

    def end(self, service: str, cause: Cause) -> None:
        """The main process of the service ends."""
        if service in self.running:
            self.running.discard(service)
            self.on_exit(ServiceName(service), self.containers[service], cause)

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
        return tuple(medium.source for medium in self._machine.media.values())

    def close(self) -> None:
        self._machine.emit = lambda _event: None


class FakeVerifier:
    def __init__(self, machine: FakeMachine) -> None:
        self._machine = machine

    async def probe(self, source: Source) -> Superblock:
        self._machine.log("probe", source.id)
        return _give(self._machine.media[source.id].superblock)

    async def verify(
        self, source: Source, progress: Callable[[int, int], None]
    ) -> tuple[StoredImage, int]:
        self._machine.log("verify", source.id)
        medium = self._machine.media[source.id]
        progress(0, source.size)
        await medium.held.wait()
        return _give(medium.verdict), os.open(os.devnull, os.O_RDONLY)


class FakeMounts:
    def __init__(self, machine: FakeMachine) -> None:
        self._machine = machine

    def mount_image(self, image: StoredImage, descriptor: int) -> str:
        os.fstat(descriptor)
        self._machine.log("mount", image.manifest.version)
        if self._machine.mount_fails is not None:
            raise _machine_error(self._machine.mount_fails)
        self._machine.mounted[image.digest] = "/mnt"
        return "/mnt"

    def unmount_image(self, digest: Digest) -> None:
        self._machine.log("unmount")
        assert not self._machine.applied, "an image was unmounted under its services"
        self._machine.mounted.pop(digest, None)

    def sweep(self, keep: Digest) -> None:
        self._machine.log("sweep")
        self._machine.mounted = {d: m for d, m in self._machine.mounted.items() if d == keep}

    def apply(self, steps: tuple[MountStep, ...]) -> None:
        self._machine.applied[_key(steps)] = steps

    def undo(self, steps: tuple[MountStep, ...]) -> None:
        self._machine.applied.pop(_key(steps), None)

    def read_bundle(self, mountpoint: str, service: Service) -> Bundle:
        assert mountpoint == "/mnt"
        if self._machine.behave(service.name).unreadable:
            raise MachineError(Code.BUNDLE, f"read the bundle of {service.name}", "a link")
        return Bundle(service=service.name, config=CONFIG, runtime="")


class FakeCgroups:
    def __init__(self, machine: FakeMachine) -> None:
        self._machine = machine

    def open_parent(self) -> tuple[str, ...]:
        return ()

    def close_parent(self) -> None:
        assert not self._machine.groups

    def create(self, service: ServiceName, resources: Resources) -> tuple[str, ...]:
        assert resources.memory, "defaults must be filled in"
        self._machine.groups.add(service)
        return ()

    def usage(self, service: ServiceName) -> Usage:
        return Usage(memory=MEMORY if service in self._machine.groups else None)

    def kill(self, service: ServiceName) -> None:
        self._machine.log("kill", service)
        self._machine.end(service, Cause(CauseKind.SIGNAL, 9))

    def remove(self, service: ServiceName) -> None:
        assert service not in self._machine.running, "a group was removed under its processes"
        self._machine.groups.discard(service)


MEMORY = 4096


class FakeRuntime:
    def __init__(self, machine: FakeMachine) -> None:
        self._machine = machine

    def start_watching(self, on_exit: Callable[[ServiceName, int, Cause], None]) -> None:
        self._machine.on_exit = on_exit

    async def create(self, plan: ContainerPlan) -> tuple[int, bool]:
        self._machine.log("create", plan.service)
        _fail(self._machine.behave(plan.service).create_fails)
        if plan.service in self._machine.running:
            return self._machine.containers[plan.service], True
        self._machine.pid += 1
        self._machine.containers[plan.service] = self._machine.pid
        self._machine.origins[plan.service] = plan.digest
        return self._machine.pid, False

    async def start(self, service: ServiceName) -> None:
        self._machine.log("start", service)
        behaviour = self._machine.behave(service)
        _fail(behaviour.start_fails)
        self._machine.running.add(service)
        if behaviour.exits is not None:
            self._machine.end(service, behaviour.exits)

    def signal(self, service: ServiceName, name: str) -> None:
        self._machine.log("signal", service, name)
        if not self._machine.behave(service).deaf:
            self._machine.end(service, Cause(CauseKind.SIGNAL, 15))

    def leftovers(self, keep: Digest) -> tuple[ServiceName, ...]:
        origins = self._machine.origins
        return tuple(ServiceName(n) for n in self._machine.containers if origins.get(n) != keep)

    async def delete(self, service: ServiceName) -> None:
        self._machine.log("delete", service)
        self._machine.running.discard(service)
        self._machine.containers.pop(service, None)

    def close(self) -> None:
        self._machine.on_exit = lambda *_: None


class FakeReadiness:
    def __init__(self, machine: FakeMachine) -> None:
        self._machine = machine

    def listen(self, service: ServiceName, directory: str, on_ready: Callable[[], None]) -> None:
        assert directory
        self._machine.notifiers[service] = on_ready

    async def check(self, plan: ContainerPlan, readiness: Readiness, pid: int) -> tuple[bool, str]:
        assert pid == self._machine.containers[plan.service]
        ready = self._machine.behave(plan.service).ready
        return ready, "" if ready else f"{readiness.kind} says no"

    def forget(self, service: ServiceName) -> None:
        self._machine.notifiers.pop(service, None)


class FakeStore:
    def __init__(self, machine: FakeMachine) -> None:
        self._machine = machine

    def drop(self, digest: Digest) -> None:
        self._machine.log("drop", digest)


def _give(found: Found | Problem) -> Found:
    if isinstance(found, Problem):
        raise ImageRefusedError(found.code, found.message, found.hint)
    return found


def _fail(problem: Problem | None) -> None:
    if problem is not None:
        raise _machine_error(problem)


def _machine_error(problem: Problem) -> MachineError:
    return MachineError(problem.code, "do it", problem.message, problem.hint)


def _key(steps: tuple[MountStep, ...]) -> str:
    return steps[0].target
