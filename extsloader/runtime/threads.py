"""Threads for mounts, which block.

They are our own: asyncio's default pool may be full of something else. Untrusted media never get
here (a read that hangs cannot be taken back from a thread): those belong to the helpers.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import ParamSpec, Protocol, TypeVar

from extsloader.model.errors import MachineError
from extsloader.model.reasons import Code

THREADS = 2

Args = ParamSpec("Args")
Result = TypeVar("Result")


class Worker(Protocol):
    """Does blocking work aside; tests do it at once instead."""

    async def run(
        self, work: Callable[Args, Result], *args: Args.args, **kw: Args.kwargs
    ) -> Result:
        """Do it and return what it returns, or raise what it raises."""

    def close(self) -> None:
        """Wait for what has begun."""


class Threads:
    """Two are enough: the kernel serialises mounts by its own locks anyway.

    They start at once: later, when the device is short of everything, none might be had.
    """

    def __init__(self) -> None:
        """Raises MachineError(E_RESOURCE)."""
        self._pool = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="mount")
        together = Barrier(THREADS)
        try:
            for _ in range(THREADS):
                self._pool.submit(together.wait)
        except RuntimeError as error:
            together.abort()
            raise MachineError(Code.RESOURCE, "start threads", f"{error}") from error

    async def run(
        self, work: Callable[Args, Result], *args: Args.args, **kw: Args.kwargs
    ) -> Result:
        """Do it in a thread and wait for it; an order that has begun is not taken back."""
        running = asyncio.get_running_loop().run_in_executor(self._pool, lambda: work(*args, **kw))
        return await asyncio.shield(running)

    def close(self) -> None:
        """Wait for what has begun."""
        self._pool.shutdown()
