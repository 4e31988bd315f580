"""Tasks that somebody holds on to."""

import asyncio
import gc

from extsloader.runtime.tasks import Tasks, repeat


async def test_a_task_lives_although_nobody_else_holds_it() -> None:
    done, go = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await go.wait()
        done.set()

    tasks = Tasks()
    assert tasks.spawn("work", work()).get_name() == "work"
    gc.collect()
    go.set()
    await done.wait()


async def test_closing_waits_for_the_end_of_what_it_cancels() -> None:
    cleaned: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append("work")

    async def fail() -> None:
        raise OSError

    tasks = Tasks()
    working = tasks.spawn("work", work())
    tasks.spawn("fail", fail())
    begun = asyncio.Event()
    asyncio.get_running_loop().call_soon(begun.set)
    await begun.wait()
    await tasks.close()
    assert cleaned == ["work"]
    assert working.cancelled()


async def test_work_is_repeated_until_the_end() -> None:
    done = asyncio.Semaphore(0)
    tasks = Tasks()
    again = tasks.spawn("again", repeat(done.release, 0))
    for _ in range(3):
        await done.acquire()
    await tasks.close()
    assert again.cancelled()
