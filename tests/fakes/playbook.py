"""The real loop and executor on a fake machine and a clock that jumps."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import ParamSpec, TypeVar

import structlog
from structlog.typing import FilteringBoundLogger

from extsloader.model.effects import Effect, KeepSocket, Reply
from extsloader.model.events import AgentStarted, StopAsked
from extsloader.model.ids import ServiceName
from extsloader.model.machine import Moment
from extsloader.model.status import AgentStatus, ServiceStatus, StatusSnapshot
from extsloader.model.world import World
from extsloader.runtime.control import Control
from extsloader.runtime.executor import Executor
from extsloader.runtime.hub import Hub, Live
from extsloader.runtime.loop import Loop
from tests.fakes import builders
from tests.fakes.machine import FakeMachine

LOG: FilteringBoundLogger = structlog.get_logger()

Args = ParamSpec("Args")
Result = TypeVar("Result")


class Inline:
    """A worker that does the work at once."""

    async def run(
        self, work: Callable[Args, Result], *args: Args.args, **kw: Args.kwargs
    ) -> Result:
        return work(*args, **kw)

    def close(self) -> None:
        pass


class Agent:
    """What a scenario talks to."""

    def __init__(self, machine: FakeMachine, world: World, dice: float = 0.0) -> None:
        self.machine = machine
        self.dice = dice
        self.life: asyncio.Task[World] | None = None
        ports = machine.ports()
        self.hub = Hub(
            world,
            self.now,
            Live(
                agent=lambda: AgentStatus(version="0", pid=1, started=0.0),
                usage=ports.cgroups.usage,
                log=lambda service: (f"last word of {service}",),
                describe_log=lambda service: f"/log/{service}.log",
            ),
        )
        self.loop = Loop(world, self.now, self._execute, self.hub.publish, LOG)
        self.control = Control(self.loop.put)
        self.executor = Executor(ports, Inline(), self.loop.put, self.hub.record, LOG)

    def _execute(self, effect: Effect) -> None:
        if isinstance(effect, Reply):
            self.control.reply(effect.request, effect.answer)
        elif not isinstance(effect, KeepSocket):
            self.executor.execute(effect)

    def now(self) -> Moment:
        try:
            now = asyncio.get_running_loop().time()
        except RuntimeError:
            now = 0.0
        return builders.moment(now, self.dice)

    def snapshot(self) -> StatusSnapshot:
        return self.hub.snapshot()

    def service(self, name: str) -> ServiceStatus:
        found = {service.name: service for service in self.snapshot().services}
        return found[ServiceName(name)]

    def states(self) -> dict[str, str]:
        return {service.name: service.state for service in self.snapshot().services}

    def history(self, subject: str) -> list[str]:
        """The states that a subject went through, in order."""
        return [c.new for c in self.hub.changes_since(0) if c.subject == subject]

    async def until(self, is_so: Callable[[StatusSnapshot], bool]) -> StatusSnapshot:
        """Wait for a status; virtual time passes as it has to."""
        snapshot = self.snapshot()
        try:
            while not is_so(snapshot):
                snapshot = await self.hub.wait_beyond(snapshot.generation)
        except asyncio.CancelledError:
            raise AssertionError(self._tell()) from None
        return snapshot

    def _tell(self) -> str:
        """What a reader needs to see why a scenario got stuck."""
        changes = "\n".join(map(str, self.hub.changes_since(0)))
        if self.life is not None and self.life.done():
            self.life.result()  # the loop itself broke: that is the news
        return f"never came true\n{changes}\n{self.machine.calls}\n{self.snapshot()}"

    async def until_state(self, state: str) -> StatusSnapshot:
        return await self.until(lambda s: s.state == state)

    async def until_service(self, name: str, state: str) -> StatusSnapshot:
        return await self.until(
            lambda s: any(x.name == name and x.state == state for x in s.services)
        )

    async def until_verdict(self, device: str, verdict: str) -> StatusSnapshot:
        return await self.until(
            lambda s: any(c.device == device and c.verdict == verdict for c in s.candidates)
        )


@asynccontextmanager
async def running(machine: FakeMachine, world: World, dice: float = 0.0) -> AsyncIterator[Agent]:
    """An agent that runs; at the end it is stopped and must have left nothing behind."""
    agent = Agent(machine, world, dice)
    agent.executor.start()
    life = asyncio.get_running_loop().create_task(agent.loop.run(), name="the loop")
    agent.life = life
    agent.loop.put(AgentStarted(("udev",)))
    try:
        yield agent
        agent.loop.put(StopAsked())
        last = await life
        assert machine.is_clean(), machine.calls
        assert not last.leftovers
    finally:
        life.cancel()
        await agent.executor.close()
