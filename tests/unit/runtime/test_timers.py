"""Timers on the event loop."""

import asyncio

from extsloader.model.events import TimerFired, TimerId, TimerKind
from extsloader.runtime.timers import Timers

CHOOSE, RETRY = TimerId(TimerKind.CHOOSE), TimerId(TimerKind.RETRY)
HOUR = 3600.0


async def test_a_timer_fires_once() -> None:
    fired: asyncio.Queue[TimerFired] = asyncio.Queue()
    timers = Timers(fired.put_nowait)
    timers.set(CHOOSE, 0)
    assert await fired.get() == TimerFired(CHOOSE)
    timers.cancel(CHOOSE)  # too late, and no error
    assert fired.empty()


async def test_a_timer_that_is_set_again_moves() -> None:
    fired: asyncio.Queue[TimerFired] = asyncio.Queue()
    timers = Timers(fired.put_nowait)
    timers.set(CHOOSE, HOUR)
    timers.set(CHOOSE, 0)
    timers.set(RETRY, 0)
    assert [await fired.get(), await fired.get()] == [TimerFired(CHOOSE), TimerFired(RETRY)]


async def test_forgotten_timers_never_fire() -> None:
    fired: asyncio.Queue[TimerFired] = asyncio.Queue()
    timers = Timers(fired.put_nowait)
    timers.set(CHOOSE, 0)
    timers.cancel(CHOOSE)
    timers.set(RETRY, 0)
    timers.close()
    last = asyncio.Event()
    asyncio.get_running_loop().call_later(0, last.set)
    await last.wait()
    assert fired.empty()
