"""One inbox, one consumer: the order of events is the order of decisions."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from structlog.typing import FilteringBoundLogger

from extsloader.core import engine
from extsloader.model.effects import Effect
from extsloader.model.errors import IllegalTransitionError
from extsloader.model.events import Event
from extsloader.model.machine import Moment
from extsloader.model.world import World


class Clock(Protocol):
    """Reads clock and dice, once for each step."""

    def __call__(self) -> Moment:
        """Return this moment."""


class Loop:
    """Holds the world and applies one event at a time to it."""

    def __init__(
        self,
        world: World,
        clock: Clock,
        execute: Callable[[Effect], None],
        publish: Callable[[World], None],
        log: FilteringBoundLogger,
    ) -> None:
        self._world = world
        self._clock = clock
        self._execute = execute
        self._publish = publish
        self._inbox: asyncio.Queue[Event] = asyncio.Queue()
        self._log = log
        self._taken = self._noticed = 0

    @property
    def world(self) -> World:
        """The newest."""
        return self._world

    def put(self, event: Event) -> None:
        """Add a fact; never blocks. Bursts are coalesced by the adapters that report them."""
        self._inbox.put_nowait(event)

    def is_alive(self) -> bool:
        """Whether an event was taken since the last call, or none waits."""
        alive = self._taken != self._noticed or self._inbox.empty()
        self._noticed = self._taken
        return alive

    async def run(self) -> World:
        """Decide until everything is stopped; returns the last world."""
        while not self._world.finished:
            self._take(await self._inbox.get())
        return self._world

    def _take(self, event: Event) -> None:
        """No await in here: nobody ever sees half a step."""
        self._taken += 1
        try:
            outcome = engine.step(self._world, event, self._clock())
        except IllegalTransitionError as error:
            self._log.critical("event ignored", event_type=type(event).__name__, reason=str(error))
            return
        changed = outcome.world is not self._world
        self._world = outcome.world
        for effect in outcome.effects:
            self._execute(effect)
        if changed:
            self._publish(self._world)
