"""Each request gets its own answer."""

import asyncio

from extsloader.model.control import Answer, Result, Verb
from extsloader.model.events import Asked
from extsloader.runtime.control import Control


def yes(message: str) -> Answer:
    return Answer(result=Result.ACCEPTED, message=message)


async def test_answers_find_those_who_asked_in_whatever_order_they_come() -> None:
    asked: list[Asked] = []
    control = Control(asked.append)
    loop = asyncio.get_running_loop()
    first = loop.create_task(control.ask(Verb.STOP, "a", 0))
    second = loop.create_task(control.ask(Verb.RESCAN, "", 1000))
    loop.call_soon(control.reply, 2, yes("two"))
    loop.call_soon(control.reply, 1, yes("one"))
    assert [(await first).message, (await second).message] == ["one", "two"]
    assert asked == [
        Asked(Verb.STOP, 0, "a", request=1),
        Asked(Verb.RESCAN, 1000, request=2),
    ]


async def test_an_answer_for_somebody_who_is_gone_or_a_signal_is_dropped() -> None:
    control = Control(lambda _: None)
    asking = asyncio.get_running_loop().create_task(control.ask(Verb.STOP, "a", 0))
    await asyncio.wait({asking}, timeout=0)
    asking.cancel()
    await asyncio.wait({asking})
    control.reply(1, yes("late"))
    control.reply(0, yes("nobody asked"))
