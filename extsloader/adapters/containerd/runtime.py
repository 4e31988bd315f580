"""`RuntimePort` with containerd, which keeps all that a later agent has to know.

A container's labels say of which image it is, and its task how it ended, until it is deleted: so
no end is lost while no agent is there. While one is, it holds a pidfd of the container's first
process: that does not depend on containerd, which may end and be started again meanwhile.
"""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from extsloader.adapters.containerd.client import PAUSED, PAUSING, RUNNING, STOPPED, Client
from extsloader.adapters.containerd.streams import passed_on
from extsloader.model.errors import MachineError
from extsloader.model.events import Cause, CauseKind, judge
from extsloader.model.ids import Digest, ServiceName
from extsloader.model.plan import ContainerPlan
from extsloader.model.reasons import Code
from extsloader.model.settings import Settings
from extsloader.ports.machine import CgroupPort, LogPort

OnExit = Callable[[ServiceName, int, Cause], None]

LABEL = "extsloader.digest"
"""On each container that is ours: the digest of its image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A container whose end will be reported."""

    service: ServiceName
    pid: int
    pidfd: int


class ContainerdRuntime:
    """Containers in the namespace `services.linuxkit`, each with the name of its service."""

    def __init__(self, settings: Settings, cgroups: CgroupPort, logs: LogPort) -> None:
        """`cgroups` knows what was killed for lack of memory."""
        self._run = settings.paths.run
        self._cgroups = cgroups
        self._logs = logs
        self._client = Client(settings.paths.containerd, settings.timeouts.runtime)
        self._watched: dict[ServiceName, Watched] = {}
        self._asking: dict[ServiceName, asyncio.Task[None]] = {}
        self._told: dict[ServiceName, int] = {}  # pids of those whose end was told
        self._on_exit: OnExit | None = None
        self._numbers = count()

    def start_watching(self, on_exit: OnExit) -> None:
        """As `RuntimePort.start_watching`; an end that happened before is reported now."""
        self._on_exit = on_exit
        for watched in self._watched.values():
            self._add_reader(watched)

    async def find_end(self, plan: ContainerPlan) -> Cause | None:
        """As `RuntimePort.find_end`."""
        if await self._find_digest(plan.service) != plan.digest:
            return None
        task = await self._client.find_task(plan.service)
        if task is None or task.state != STOPPED or task.pid == self._told.get(plan.service):
            return None
        return self._judge(plan.service, task.code)

    async def create(self, plan: ContainerPlan) -> tuple[int, bool]:
        """As `RuntimePort.create`."""
        ours = await self._find_digest(plan.service) == plan.digest
        if ours and (watched := await self._adopt(plan.service)):
            return self._watch(watched), True
        await self.delete(plan.service)
        try:
            watched = await self._create(plan)
        except BaseException:
            await self.delete(plan.service)
            raise
        return self._watch(watched), False

    def call_off(self, service: ServiceName) -> None:
        """As `RuntimePort.call_off`; what hangs there is containerd's, within its deadline."""

    async def start(self, service: ServiceName) -> None:
        """As `RuntimePort.start`."""
        await self._client.start_task(service)

    def signal(self, service: ServiceName, name: str) -> None:
        """As `RuntimePort.signal`."""
        if watched := self._watched.get(service):
            _kill(watched.pidfd, signal.Signals[name])

    async def execute(
        self, service: ServiceName, command: tuple[str, ...], deadline: float
    ) -> tuple[int, str]:
        """Run a command in the container: its exit code, and why it could not be run.

        Its output goes nowhere. Raises MachineError, after killing the command, when `deadline`
        seconds have passed.
        """
        process = await self._client.read_process(service) | {"args": command}
        number = f"probe{os.getpid()}.{next(self._numbers)}"
        try:
            async with asyncio.timeout(deadline):
                return await self._client.execute(service, number, process)
        except TimeoutError:
            stage = f"run {command[0]} in container {service}"
            reason = f"no answer within {deadline:g} s"
            raise MachineError(Code.RUNTIME, stage, reason) from None
        finally:
            await self._client.end_execution(service, number)

    async def delete(self, service: ServiceName) -> None:
        """As `RuntimePort.delete`; its end is not reported any more."""
        self._forget(service)
        if await self._find_digest(service) is None:
            return
        if task := await self._client.find_task(service):
            if task.state in (PAUSED, PAUSING):  # a frozen process does not die
                await self._client.resume_task(service)
            await self._client.kill_task(service)
            await self._client.wait_task(service)
            await self._client.remove_task(service)
        await self._client.remove_container(service)

    async def leftovers(self, keep: Digest) -> tuple[ServiceName, ...]:
        """As `RuntimePort.leftovers`."""
        found = await self._client.list_labels()
        ours = {name: labels[LABEL] for name, labels in found.items() if LABEL in labels}
        return tuple(sorted(ServiceName(name) for name in ours if ours[name] != keep))

    def close(self) -> None:
        """As `RuntimePort.close`."""
        for service in tuple(self._watched):
            self._forget(service)
        self._on_exit = None

    async def _find_digest(self, service: ServiceName) -> str | None:
        """Of our container; None where there is none.

        EVE's own services are in the same namespace. Raises MachineError for one of theirs.
        """
        labels = await self._client.find_labels(service)
        if labels is None:
            return None
        if LABEL not in labels:
            raise MachineError(
                Code.RUNTIME,
                f"use the name {service}",
                "another program's container has it",
                "give the service another name",
            )
        return labels[LABEL]

    async def _adopt(self, service: ServiceName) -> Watched | None:
        task = await self._client.find_task(service)
        return (
            await self._open(service) if task and task.state in (RUNNING, PAUSED, PAUSING) else None
        )

    async def _open(self, service: ServiceName) -> Watched | None:
        """A descriptor of the first process, created or running; None where it has ended."""
        task = await self._client.find_task(service)
        if task is None or task.state == STOPPED:
            return None
        with suppress(ProcessLookupError):
            watched = Watched(service=service, pid=task.pid, pidfd=os.pidfd_open(task.pid))
            # Asked after opening: from here on the pidfd cannot come to mean another process.
            again = await self._client.find_task(service)
            if again and again.pid == task.pid and again.state != STOPPED:
                return watched
            os.close(watched.pidfd)
        return None

    async def _create(self, plan: ContainerPlan) -> Watched:
        await self._client.add_container(plan.service, {LABEL: plan.digest}, plan.spec)
        try:
            with passed_on(self._logs, plan.service, self._run) as (output, errors):
                pid = await self._client.create_task(plan.service, output, errors)
        except OSError as error:
            reason = error.strerror or f"{error}"
            raise MachineError(
                Code.RUNTIME, f"pass on what {plan.service} writes", reason
            ) from error
        watched = await self._open(plan.service)
        if watched is None:
            reason = "its first process has ended already"
            raise MachineError(Code.RUNTIME, f"create container {plan.service}", reason)
        _set_nice(pid, plan.resources.nice)
        return watched

    def _watch(self, watched: Watched) -> int:
        self._forget(watched.service)
        self._watched[watched.service] = watched
        if self._on_exit:
            self._add_reader(watched)
        return watched.pid

    def _add_reader(self, watched: Watched) -> None:
        asyncio.get_running_loop().add_reader(watched.pidfd, self._end, watched)

    def _end(self, watched: Watched) -> None:
        """It has ended: ask how, which nobody could be told before containerd knows it."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(watched.pidfd)
        work = loop.create_task(self._report(watched), name=f"how {watched.service} ended")
        self._asking[watched.service] = work

    async def _report(self, watched: Watched) -> None:
        cause = await self._find_cause(watched.service)
        self._asking.pop(watched.service)
        self._forget(watched.service)
        if self._on_exit:
            self._told[watched.service] = watched.pid
            self._on_exit(watched.service, watched.pid, cause)

    async def _find_cause(self, service: ServiceName) -> Cause:
        with suppress(MachineError):
            code = await self._client.wait_task(service)
            if code is not None:
                return self._judge(service, code)
        return Cause(CauseKind.LOST)

    def _judge(self, service: ServiceName, code: int) -> Cause:
        return judge(code, oom=bool(self._cgroups.usage(service).oom_kills))

    def _forget(self, service: ServiceName) -> None:
        if asking := self._asking.pop(service, None):
            asking.cancel()
        if watched := self._watched.pop(service, None):
            asyncio.get_running_loop().remove_reader(watched.pidfd)
            os.close(watched.pidfd)


def _set_nice(pid: int, nice: int) -> None:
    """For all its threads: which one will execute the service is not said (setpriority(2))."""
    if nice:
        with suppress(OSError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                os.setpriority(os.PRIO_PROCESS, int(thread.name), nice)


def _kill(pidfd: int, number: int) -> None:
    """Send a signal; no error when the process is gone."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)
