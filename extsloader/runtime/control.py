"""Between those who ask for something and the loop that decides about it."""

import asyncio
from collections.abc import Callable

from extsloader.model.control import Answer, Verb
from extsloader.model.events import Asked


class Control:
    """Numbers the requests, and gives each its answer (ControlPort)."""

    def __init__(self, put: Callable[[Asked], None]) -> None:
        self._put = put
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._last = 0

    async def ask(self, verb: Verb, service: str, uid: int) -> Answer:
        """What came of it; whoever stops waiting is forgotten, what he asked for is done."""
        self._last += 1
        request = self._last
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[request] = answer
        try:
            self._put(Asked(verb=verb, uid=uid, service=service, request=request))
            return await answer
        finally:
            del self._waiting[request]

    def reply(self, request: int, answer: Answer) -> None:
        """Pass the loop's answer on."""
        waiting = self._waiting.get(request)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)
