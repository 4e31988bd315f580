"""Named tasks that somebody holds on to: asyncio itself keeps only weak references."""

import asyncio
from collections.abc import Callable, Coroutine


async def repeat(work: Callable[[], None], pause: float) -> None:
    """Do some work that raises nothing, for ever, with so many seconds between."""
    while True:
        work()
        await asyncio.sleep(pause)


class Tasks:
    """The tasks of one owner."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, name: str, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run it; its reference is dropped when it ends."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Cancel what still runs and wait for its end."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
