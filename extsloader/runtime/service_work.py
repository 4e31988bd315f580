"""Carries out the orders about services."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from extsloader.model import events as ev
from extsloader.model.errors import MachineError
from extsloader.model.events import Cause
from extsloader.model.ids import Digest, ServiceName
from extsloader.model.manifest import ProbeKind, Readiness
from extsloader.model.plan import ContainerPlan
from extsloader.model.reasons import Problem
from extsloader.ports.machine import Emit, Ports
from extsloader.runtime.threads import Worker

FROZEN = "it is paused by another program"


@dataclass(frozen=True, slots=True)
class Running:
    """The current run of a service: what the machine reports is matched with it."""

    plan: ContainerPlan
    run: int
    pid: int
    limited: bool = False
    ended: Cause | None = None  # before it was limited


class ServiceWork:
    """Knows which run of a service is on the machine; decides nothing."""

    def __init__(self, ports: Ports, threads: Worker, emit: Emit) -> None:
        self._mounts = ports.mounts
        self._cgroups = ports.cgroups
        self._runtime = ports.runtime
        self._readiness = ports.readiness
        self._device = ports.device
        self._threads = threads
        self._emit = emit
        self._running: dict[ServiceName, Running] = {}

    def start_watching(self) -> None:
        """Report the ends of services from now on."""
        self._runtime.start_watching(self._report_exit)

    async def create(self, plan: ContainerPlan, run: int) -> ev.ServiceCreated | ev.ServiceExited:
        """Mounts, container, limits. Raises MachineError; the removal that follows undoes it.

        The limits come last: an old container takes its control group along when it makes way.
        """
        if cause := await self._runtime.find_end(plan):
            return ev.ServiceExited(plan.service, run, cause)
        await self._threads.run(self._mounts.apply, plan.mounts)
        pid, adopted = await self._runtime.create(plan)
        self._running[plan.service] = Running(plan, run, pid)
        reduced = await self._threads.run(self._cgroups.create, plan.service, plan.resources)
        if cause := self._running[plan.service].ended:
            return ev.ServiceExited(plan.service, run, cause)
        self._running[plan.service] = Running(plan, run, pid, limited=True)
        ready = self._listen(plan, run, again=adopted)
        return ev.ServiceCreated(
            plan.service,
            run,
            pid,
            running=adopted,
            ready=ready,
            reduced=reduced,
            load=self._device.read_load(),
        )

    def call_off(self, service: ServiceName) -> None:
        """Do not wait for long any more for a creation that is under way."""
        self._runtime.call_off(service)

    async def start(self, service: ServiceName, run: int) -> ev.ServiceStarted:
        """Let its first instruction run. Raises MachineError."""
        await self._runtime.start(service)
        return ev.ServiceStarted(service, run)

    async def check(
        self, service: ServiceName, run: int, readiness: Readiness, deadline: float
    ) -> ev.ServiceChecked:
        """One readiness check or health probe. Raises MachineError."""
        current = self._running[service]
        frozen = ev.ServiceChecked(service, run, ready=False, detail=FROZEN, frozen=True)
        if self._cgroups.usage(service).frozen:
            return frozen
        ready, detail = await self._readiness.check(current.plan, readiness, current.pid, deadline)
        if not ready and self._cgroups.usage(service).frozen:  # meanwhile
            return frozen
        return ev.ServiceChecked(service, run, ready, detail)

    def signal(self, service: ServiceName, name: str) -> None:
        """Ask it to end."""
        self._runtime.signal(service, name)

    def kill(self, service: ServiceName) -> None:
        """SIGKILL everything in its cgroup."""
        self._cgroups.kill(service)

    async def remove(self, plan: ContainerPlan, run: int, *, unmount: bool) -> ev.ServiceRemoved:
        """Take it off the machine, going on after a failure so that as little as possible stays."""
        self._running.pop(plan.service, None)
        self._readiness.forget(plan.service)
        problems = [
            await _attempt(self._runtime.delete(plan.service)),
            await _attempt(self._threads.run(self._empty_cgroup, plan.service)),
        ]
        if unmount:
            problems.append(await _attempt(self._threads.run(self._mounts.undo, plan.mounts)))
        first = next((problem for problem in problems if problem), None)
        return ev.ServiceRemoved(plan.service, run, first)

    async def clear(self, keep: Digest) -> tuple[Problem, ...]:
        """Take away what an earlier agent left of other images; returns what stays.

        It was killed, and would have been asked to stop before another image gets its turn.
        """
        problems: list[Problem | None] = []
        try:
            left = await self._runtime.leftovers(keep)
        except MachineError as error:
            return (error.problem,)
        for service in left:
            problems.append(await _attempt(self._runtime.delete(service)))
            problems.append(await _attempt(self._threads.run(self._empty_cgroup, service)))
        problems.append(await _attempt(self._threads.run(self._mounts.sweep, keep)))
        return tuple(problem for problem in problems if problem)

    def close(self) -> None:
        """Stop watching; services run on."""
        self._runtime.close()

    def _empty_cgroup(self, service: ServiceName) -> None:
        self._cgroups.kill(service)
        self._cgroups.remove(service)

    def _listen(self, plan: ContainerPlan, run: int, *, again: bool) -> bool:
        """Before its start, so that no READY=1 is missed; whether an earlier agent heard one."""
        if plan.readiness.kind is not ProbeKind.NOTIFY:
            return False
        report = self._notifier(plan, run)
        return self._readiness.listen(plan.service, plan.notify_dir, report, again=again)

    def _notifier(self, plan: ContainerPlan, run: int) -> Callable[[], None]:
        def report() -> None:
            self._emit(ev.ServiceNotified(plan.service, run))

        return report

    def _report_exit(self, service: ServiceName, pid: int, cause: Cause) -> None:
        """An end that is about no current run (we removed it ourselves) is no news."""
        current = self._running.get(service)
        if current is None or current.pid != pid:
            return
        if current.limited:
            self._emit(ev.ServiceExited(service, current.run, cause))
        else:  # its creation tells it, which is the one answer to that order
            self._running[service] = replace(current, ended=cause)


async def _attempt(work: Awaitable[None]) -> Problem | None:
    try:
        await work
    except MachineError as error:
        return error.problem
    return None
