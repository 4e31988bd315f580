"""Timers on the event loop: nothing wakes up that nobody set."""

import asyncio
from collections.abc import Callable

from extsloader.model.events import TimerFired, TimerId


class Timers:
    """At most one timer for each id; setting it again moves it."""

    def __init__(self, emit: Callable[[TimerFired], None]) -> None:
        self._emit = emit
        self._handles: dict[TimerId, asyncio.TimerHandle] = {}

    def set(self, timer: TimerId, delay: float) -> None:
        """Report TimerFired after so many seconds."""
        self.cancel(timer)
        loop = asyncio.get_running_loop()
        self._handles[timer] = loop.call_later(delay, self._fire, timer)

    def cancel(self, timer: TimerId) -> None:
        """Forget it; no error when it does not run."""
        handle = self._handles.pop(timer, None)
        if handle is not None:
            handle.cancel()

    def close(self) -> None:
        """Forget them all."""
        for timer in tuple(self._handles):
            self.cancel(timer)

    def _fire(self, timer: TimerId) -> None:
        del self._handles[timer]
        self._emit(TimerFired(timer))
