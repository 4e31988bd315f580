"""Blocking work in threads of our own."""

import asyncio
import threading

import pytest

from extsloader.model.errors import MachineError
from extsloader.model.reasons import Code
from extsloader.runtime.threads import Threads


async def test_work_is_done_aside_and_its_outcome_comes_back() -> None:
    threads = Threads()
    name, *rest = await threads.run(lambda a, b: (threading.current_thread().name, a, b), 1, b=2)
    assert (name[:-1], rest) == ("mount_", [1, 2])
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0)
    threads.close()


async def test_work_needs_no_new_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = Threads()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert [await threads.run(int, word) for word in ("1", "2")] == [1, 2]
    with pytest.raises(MachineError, match="cannot start threads: there are too many") as error:
        Threads()
    assert error.value.problem.code is Code.RESOURCE
    threads.close()


def refuse(_: threading.Thread) -> None:
    raise RuntimeError("there are too many")


async def test_work_that_has_begun_is_finished_although_nobody_waits_any_more() -> None:
    threads = Threads()
    begun, go, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go.wait()
        ended.set()

    waiting = asyncio.get_running_loop().create_task(threads.run(work))
    await asyncio.to_thread(begun.wait)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not ended.is_set()
    go.set()
    threads.close()
    assert ended.is_set()
