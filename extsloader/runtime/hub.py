"""Where readers get the status: nobody who reads can hold up the loop."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from extsloader.core import view
from extsloader.core.explain import explain, is_well
from extsloader.core.history import changes_of
from extsloader.model.ids import ServiceName
from extsloader.model.status import (
    AgentState,
    AgentStatus,
    Change,
    Explanation,
    ServiceStatus,
    StatusSnapshot,
    Usage,
)
from extsloader.model.timeline import NOTED, Timeline
from extsloader.model.world import World
from extsloader.runtime.loop import Clock
from extsloader.runtime.service_work import FROZEN

REMEMBERED = 1024
"""Changes kept for `/v1/events`: a crash storm of 50 services fills it in minutes, not seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """What is read only when somebody asks."""

    agent: Callable[[], AgentStatus]
    usage: Callable[[ServiceName], Usage]
    log: Callable[[ServiceName], tuple[str, ...]]
    describe_log: Callable[[str], str]


class Hub:
    """The newest world for readers (StatusPort), and the last changes."""

    def __init__(self, world: World, clock: Clock, live: Live) -> None:
        self._world = world
        self._clock = clock
        self._live = live
        self._generation = 0
        self._begun = clock()
        self._since = self._begun.wall
        self._state: AgentState = view.judge(world)[0]
        self._changes: deque[Change] = deque(maxlen=REMEMBERED)
        self._changed = asyncio.Event()
        past = [change for changes in world.history.changes.values() for change in changes]
        for change in sorted(past, key=lambda change: change.wall):
            self._remember(change)
        self._noted: list[tuple[float, Change]] = []  # of this run, until the device is ready
        self._starting = True

    def publish(self, world: World) -> None:
        """Take over the loop's new world and wake those who wait."""
        self._world = world
        self._generation += 1
        state, _ = view.judge(world)
        if state is not self._state:
            self._state, self._since = state, self._clock().wall
        self._wake()

    def record(self, change: Change) -> Change:
        """Remember a change; returns it with its number."""
        numbered = self._remember(change)
        if self._starting:
            self._noted.append((self._clock().now, numbered))
            is_ready = (change.subject, change.new) == ("agent", AgentState.READY)
            self._starting = len(self._noted) < NOTED and not is_ready
        self._wake()
        return numbered

    def snapshot(self) -> StatusSnapshot:
        """The newest truth; usage and the agent's memory are read now."""
        found = self._take_snapshot()
        return replace(found, services=tuple(self._add_usage(s) for s in found.services))

    async def wait_beyond(self, generation: int) -> StatusSnapshot:
        """The next snapshot that is newer than the one that the reader has.

        Without usage: while 50 services start, reading it for each of the changes took more time
        than starting them.
        """
        while self._generation <= generation:
            await self._changed.wait()
        return self._take_snapshot()

    def explain(self, service: ServiceName) -> Explanation | None:
        """Why the service is as it is, with the last words of the one to blame."""
        snapshot = view.take_snapshot(self._world, self._clock())
        found = explain(snapshot, service, self._live.describe_log)
        if found is None:
            return None
        found = replace(found, history=changes_of(self._world, service))
        if is_well(snapshot, found.root):
            return found
        return replace(found, log=self._live.log(found.root))

    def timeline(self) -> Timeline:
        """What happened until the device was ready for the first time, or until now."""
        from extsloader.core.timeline import lay_out  # noqa: PLC0415 - few ask, all would load

        return lay_out(self._world, self._begun, self._noted, self._clock().now)

    def changes_since(self, change: int) -> tuple[Change, ...]:
        """Remembered changes with a higher number, oldest first."""
        return tuple(found for found in self._changes if found.id > change)

    async def wait_change(self, change: int) -> tuple[Change, ...]:
        """The same, waiting until there is at least one."""
        while not (found := self.changes_since(change)):
            await self._changed.wait()
        return found

    def _remember(self, change: Change) -> Change:
        last = self._changes[-1].id if self._changes else 0
        numbered = replace(change, id=last + 1)
        self._changes.append(numbered)
        return numbered

    def _take_snapshot(self) -> StatusSnapshot:
        found = view.take_snapshot(self._world, self._clock())
        return replace(
            found, generation=self._generation, since=self._since, agent=self._live.agent()
        )

    def _add_usage(self, service: ServiceStatus) -> ServiceStatus:
        """A service that another program has paused is as it was, and does not answer."""
        if not service.pid:
            return service
        usage = self._live.usage(service.name)
        return replace(service, usage=usage, reason=FROZEN if usage.frozen else service.reason)

    def _wake(self) -> None:
        """Everybody who waits now looks again; an event set for good would make them spin."""
        self._changed.set()
        self._changed = asyncio.Event()
