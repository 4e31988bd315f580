"""`RuntimePort` with conmon and an OCI runtime (runc or crun)."""

import asyncio
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from extsloader.adapters.oci import conmon
from extsloader.adapters.oci.launch import (
    Launch,
    closing_descriptor,
    launched,
    passed_on,
    set_nice,
)
from extsloader.adapters.oci.processes import (
    PATH,
    Ended,
    Identity,
    identify,
    keep_descriptors,
    kill,
    open_process,
    readable,
    reap,
    run,
)
from extsloader.adapters.oci.records import Record, Records
from extsloader.model.errors import MachineError
from extsloader.model.events import Cause
from extsloader.model.ids import Digest, ServiceName
from extsloader.model.machine import Machine
from extsloader.model.plan import ContainerPlan
from extsloader.model.reasons import Code
from extsloader.model.settings import Settings
from extsloader.ports.machine import LogPort

OnExit = Callable[[ServiceName, int, Cause], None]

ALIVE = ("running", "paused")
CONMON_GRACE = 2.0
"""Seconds that conmon may take to end after its container was killed; it takes about 1 ms.

And that a runtime at work gets when its creation is called off, for which it needs about 50 ms.
"""

_REFUSED = "compare the reason with the service's config.json in the image"


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A container whose end will be reported."""

    service: ServiceName
    directory: Path
    conmon: int  # pidfd: readable when the container has ended and its exit code is written
    container: int  # pidfd
    pid: int


Earlier = tuple[Path, Record]
"""A container of an earlier agent: its directory and who runs it."""


class OciRuntime:
    """Containers below the run directory; the next agent finds them there again."""

    def __init__(self, settings: Settings, machine: Machine, logs: LogPort) -> None:
        """Raises MachineError(E_RUNTIME) where a program is not installed."""
        keep_descriptors()
        run_directory = Path(settings.paths.run)
        self._conmon = _find_program("conmon")
        self._root = run_directory / "runtime"
        program = _find_program(_choose_runtime(settings, machine))
        self._command = (program, "--root", f"{self._root}")
        self._deadline = settings.timeouts.runtime
        self._logs = logs
        self._records = Records(run_directory / "containers")
        self._watched: dict[ServiceName, Watched] = {}
        self._launches: dict[ServiceName, Launch] = {}
        self._on_exit: OnExit | None = None
        self._numbers = count()

    def start_watching(self, on_exit: OnExit) -> None:
        """As `RuntimePort.start_watching`; an end that happened before is reported now."""
        self._on_exit = on_exit
        for watched in self._watched.values():
            self._add_reader(watched)

    async def find_end(self, plan: ContainerPlan) -> Cause | None:
        """As `RuntimePort.find_end`."""
        for directory, record in self._find_earlier(plan):
            if record.started and not _is_alive(record.container):
                await _wait_for_end(record.conmon)  # it is about to write the exit code
                return conmon.read_cause(directory, plan.service)
        return None

    async def create(self, plan: ContainerPlan) -> tuple[int, bool]:
        """As `RuntimePort.create`."""
        if watched := await self._adopt(plan):
            return self._watch(watched), True
        await self.delete(plan.service)
        try:
            watched = await self._create(plan)
        except BaseException:
            await self.delete(plan.service)
            raise
        return self._watch(watched), False

    def call_off(self, service: ServiceName) -> None:
        """As `RuntimePort.call_off`.

        conmon waits for ever for a runtime that was killed once its child holds conmon's pipes.
        """
        if launch := self._launches.get(service):
            loop = asyncio.get_running_loop()
            loop.call_later(CONMON_GRACE, self._give_up, service, launch)

    async def start(self, service: ServiceName) -> None:
        """As `RuntimePort.start`."""
        await self._call(f"start container {service}", "start", service)
        if watched := self._watched.get(service):
            with _stage(f"remember that {service} was started"):
                self._records.mark_started(watched.directory)

    def signal(self, service: ServiceName, name: str) -> None:
        """As `RuntimePort.signal`."""
        if watched := self._watched.get(service):
            kill(watched.container, signal.Signals[name])

    async def execute(
        self, service: ServiceName, command: tuple[str, ...], deadline: float
    ) -> tuple[int, str]:
        """Run a command in the container: its exit code and the last line of its complaints.

        Raises MachineError, after killing the command, when `deadline` seconds have passed.
        """
        pid_file = self._root / f"{service}.exec{next(self._numbers)}"
        argv = (*self._command, "exec", "--pid-file", f"{pid_file}", service, *command)
        try:
            with _stage(f"run {command[0]} in container {service}", deadline):
                ended = await run(argv, deadline, lambda pid: _kill_child(pid, pid_file))
        finally:
            pid_file.unlink(missing_ok=True)
        return ended.code, conmon.find_reason(ended.errors)

    async def delete(self, service: ServiceName) -> None:
        """As `RuntimePort.delete`; its end is not reported any more."""
        self._forget(service)
        directories = self._records.find(service)
        for directory in directories:
            await self._end(directory)
        if (self._root / service).exists():
            await self._call(f"delete container {service}", "delete", "--force", service)
        with _stage(f"delete the files of container {service}"):
            for directory in directories:
                self._records.remove(directory)

    async def leftovers(self, keep: Digest) -> tuple[ServiceName, ...]:
        """As `RuntimePort.leftovers`."""
        return self._records.services_of_others(keep)

    def close(self) -> None:
        """As `RuntimePort.close`."""
        for watched in self._watched.values():
            self._remove_reader(watched)
            os.close(watched.conmon)
        self._watched.clear()
        self._on_exit = None

    def _find_earlier(self, plan: ContainerPlan) -> list[Earlier]:
        """What earlier agents have made of this service from this image."""
        return [
            (directory, record)
            for directory in self._records.find(plan.service)
            if (record := self._records.load(directory)) and record.digest == plan.digest
        ]

    async def _adopt(self, plan: ContainerPlan) -> Watched | None:
        """The container of an earlier agent, if it runs.

        The runtime (10 ms) is only asked about one whose start nobody wrote down.
        """
        for directory, record in self._find_earlier(plan):
            if not record.started and await self._status(plan.service) not in ALIVE:
                continue
            if watched := _open(plan.service, directory, record):
                return watched
        return None

    async def _create(self, plan: ContainerPlan) -> Watched:
        with _stage(f"create container {plan.service}", self._deadline):
            directory = self._records.make(plan)
            with self._launched(plan.service, directory) as launch:
                self._records.save(directory, plan.digest, launch.identity, None)
                pid = await self._hear_pid(plan.service, launch)
                container = identify(pid)
                if container and container.parent == launch.identity.pid:
                    set_nice(pid, plan.resources.nice)
                    saved = self._records.save(directory, plan.digest, launch.identity, container)
                    if watched := _open(plan.service, directory, saved):
                        return watched
                raise ValueError("its first process has ended already")

    def _give_up(self, service: ServiceName, launch: Launch) -> None:
        if self._launches.get(service) is launch:
            del self._launches[service]
            launch.kill()

    async def _hear_pid(self, service: ServiceName, launch: Launch) -> int:
        self._launches[service] = launch
        try:
            return await launch.hear_pid(self._deadline)
        except ValueError:
            if service in self._launches:
                raise
            raise ValueError("it was called off") from None
        finally:
            self._launches.pop(service, None)

    @contextmanager
    def _launched(self, service: ServiceName, directory: Path) -> Iterator[Launch]:
        complaints = directory / "complaints"
        with passed_on(self._logs, service, complaints) as streams:
            if streams:
                log = conmon.log_to_streams(complaints)
            else:
                log = conmon.log_to_file(*self._logs.make_room(service))
            # The name is unique in the runtime's root directory, which is ours.
            argv = conmon.command_line(self._conmon, self._command, service, directory, log)
            with launched(argv, streams) as launch:
                yield launch

    async def _end(self, directory: Path) -> None:
        """Kill what a record names: the container, which ends conmon, else conmon itself."""
        record = self._records.load(directory)
        if record is None:
            return
        for identity in (record.container, record.conmon):
            pidfd = open_process(identity) if identity else None
            if pidfd is None:
                continue
            if identity == record.container or record.container is None:
                kill(pidfd, signal.SIGKILL)
            try:
                async with asyncio.timeout(CONMON_GRACE):
                    await readable(pidfd)
            except TimeoutError:
                kill(pidfd, signal.SIGKILL)
            finally:
                reap(pidfd)

    async def _status(self, service: ServiceName) -> str:
        """What the runtime says about a container, "" where it knows none."""
        stage = f"ask for the state of container {service}"
        with _stage(stage, self._deadline):
            ended = await run((*self._command, "state", service), self._deadline)
            return f"{json.loads(ended.output)['status']}" if ended.code == 0 else ""

    async def _call(self, stage: str, *arguments: str) -> Ended:
        with _stage(stage, self._deadline):
            ended = await run((*self._command, *arguments), self._deadline)
            if ended.code != 0:
                raise ValueError(conmon.find_reason(ended.errors) or f"exit code {ended.code}")
            return ended

    def _watch(self, watched: Watched) -> int:
        self._forget(watched.service)
        self._watched[watched.service] = watched
        if self._on_exit:
            self._add_reader(watched)
        return watched.pid

    def _add_reader(self, watched: Watched) -> None:
        asyncio.get_running_loop().add_reader(watched.conmon, self._report, watched)

    def _remove_reader(self, watched: Watched) -> None:
        if self._on_exit:
            asyncio.get_running_loop().remove_reader(watched.conmon)
        os.close(watched.container)

    def _report(self, watched: Watched) -> None:
        self._forget(watched.service)
        if self._on_exit:
            cause = conmon.read_cause(watched.directory, watched.service)
            self._on_exit(watched.service, watched.pid, cause)

    def _forget(self, service: ServiceName) -> None:
        if watched := self._watched.pop(service, None):
            self._remove_reader(watched)
            reap(watched.conmon)


def _choose_runtime(settings: Settings, machine: Machine) -> str:
    if settings.runtime != "auto":
        return settings.runtime
    # crun 1.8 does not run where both versions of control groups are mounted; runc always does.
    return "crun" if machine.cgroups == 2 else "runc"  # noqa: PLR2004 - a version


def _find_program(name: str) -> str:
    found = shutil.which(name, path=PATH)
    if found is None:
        raise MachineError(
            Code.RUNTIME, "run containers", f"{name} is not installed", f"apt install {name}"
        )
    return found


def _open(service: ServiceName, directory: Path, record: Record) -> Watched | None:
    """Descriptors of both processes; None where one of them has ended."""
    if record.container is None or (container := open_process(record.container)) is None:
        return None
    if (supervisor := open_process(record.conmon)) is None:
        os.close(container)
        return None
    return Watched(
        service=service,
        directory=directory,
        conmon=supervisor,
        container=container,
        pid=record.container.pid,
    )


async def _wait_for_end(identity: Identity) -> None:
    """Not for long: it takes about 1 ms."""
    pidfd = open_process(identity)
    if pidfd is not None:
        with closing_descriptor(pidfd), suppress(TimeoutError):
            async with asyncio.timeout(CONMON_GRACE):
                await readable(pidfd)


def _is_alive(identity: Identity | None) -> bool:
    pidfd = open_process(identity) if identity else None
    if pidfd is not None:
        os.close(pidfd)
    return pidfd is not None


def _kill_child(runtime: int, pid_file: Path) -> bool:
    """Kill what `exec` started, while its parent can still collect it; whether it was there.

    The runtime cannot pass a SIGKILL on, and its child would outlive it.
    """
    with suppress(OSError, ValueError):
        child = identify(int(pid_file.read_text(encoding="ascii")))
        pidfd = open_process(child) if child and child.parent == runtime else None
        if pidfd is not None:
            with closing_descriptor(pidfd):
                kill(pidfd, signal.SIGKILL)
            return True
    return False


@contextmanager
def _stage(stage: str, deadline: float = 0.0) -> Iterator[None]:
    """Say what was being done when a program or the kernel refused."""
    try:
        yield
    except TimeoutError:
        raise MachineError(Code.RUNTIME, stage, f"no answer within {deadline:g} s") from None
    except OSError as error:
        raise MachineError(Code.RUNTIME, stage, error.strerror or f"{error}") from error
    except (ValueError, KeyError) as error:
        raise MachineError(Code.RUNTIME, stage, f"{error}", _REFUSED) from error
