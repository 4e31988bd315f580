"""An event loop whose clock jumps to the next timer when there is nothing else to do.

An hour of back-off takes no time and no test sleeps. Real descriptors still work: they are asked
first, and time only moves when none of them has anything to say.
"""

import asyncio
import selectors


class StuckError(Exception):
    """The scenario waits for something that cannot happen any more."""


class JumpingSelector(selectors.SelectSelector):
    """Never waits: what it would have waited is added to the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise StuckError("no timer is set and nothing is going on: this waits for ever")
        if not ready and timeout:
            self.skipped += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Starts at zero."""

    def __init__(self) -> None:
        self._jumping = JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.skipped
