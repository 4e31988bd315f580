"""One client of the status socket. h11 reads and writes HTTP; nothing is parsed by hand.

Memory per client is bounded: h11 keeps at most `Bounds.head` bytes of a request, a client that
sends more than that ahead of its turn is dropped, and an answer is handed to the transport in
pieces, each only when the one before is all but sent, so a slow reader holds one piece and not
a history. A reader that takes no piece for `Bounds.write` seconds is dropped.
"""

import asyncio
import socket
import struct
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass

import h11

from extsloader.adapters.status_socket import routes
from extsloader.adapters.status_socket.routes import Command, EventStream, LongPoll, Reply, Request
from extsloader.ports.status import ControlPort, StatusPort

READ = 4096  # bytes
CREDENTIALS = struct.Struct("iII")  # pid, uid, gid (unix(7), SO_PEERCRED)
STREAM_HEADERS = (("Content-Type", "text/event-stream"), ("Cache-Control", "no-store"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a client may use. Times in seconds, sizes in bytes."""

    clients: int = 32
    head: int = 16 << 10
    request: float = 5.0  # from its first byte, or from connecting, to its end
    idle: float = 60.0  # between two requests
    write: float = 30.0  # for one piece
    command: float = 40.0  # until it is decided; checking a configuration may take 30
    piece: int = 64 << 10  # of an answer; the transport holds two at most
    beat: float = 15.0  # between two signs of life in a quiet event stream


class GoneError(Exception):
    """The client left, or is not worth waiting for."""


class Connection:
    """Serves one client until it leaves, errs or is too slow."""

    def __init__(
        self,
        status: StatusPort,
        control: ControlPort,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        bounds: Bounds,
    ) -> None:
        self._status = status
        self._control = control
        self._reader = reader
        self._writer = writer
        self._bounds = bounds
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=bounds.head)
        self._bodiless = False
        writer.transport.set_write_buffer_limits(high=bounds.piece)

    async def serve(self) -> None:
        """Answer requests until one of both sides wants to end."""
        try:
            with suppress(GoneError, ConnectionError):
                await self._serve_one()
                while self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
                    self._http.start_next_cycle()
                    await self._wait_for_request()
                    await self._serve_one()
        finally:
            await self._close()

    async def refuse(self, reply: Reply) -> None:
        """Say no to a client that has not been heard yet."""
        with suppress(GoneError, ConnectionError):
            await self._send_reply(reply)
        await self._close()

    async def _serve_one(self) -> None:
        try:
            async with asyncio.timeout(self._bounds.request):
                request = await self._read_request()
        except h11.RemoteProtocolError as error:
            code = "E_LIMIT" if error.error_status_hint in {413, 431} else "E_REQUEST"
            message = f"cannot read the request: {error}"
            await self._send_reply(routes.fail(error.error_status_hint, code, message))
        except TimeoutError:
            message = f"the request was not complete after {self._bounds.request:g} s"
            await self._send_reply(routes.fail(408, "E_TIMEOUT", message))
        else:
            await self._answer(routes.answer(self._status, request))

    async def _wait_for_request(self) -> None:
        if self._http.trailing_data[0]:
            return
        try:
            async with asyncio.timeout(self._bounds.idle):
                self._http.receive_data(await self._reader.read(READ))
        except TimeoutError:
            raise GoneError from None

    async def _read_request(self) -> Request:
        self._bodiless = False
        head = await self._next_event()
        if not isinstance(head, h11.Request):
            raise GoneError  # it closed between two requests
        self._bodiless = head.method == b"HEAD"  # RFC 9110, 9.3.2
        if isinstance(await self._next_event(), h11.Data):
            raise h11.RemoteProtocolError("no body is expected", error_status_hint=413)
        headers = {name: value.decode("latin-1") for name, value in head.headers}
        return Request(
            method=head.method.decode("ascii"),
            target=head.target.decode("latin-1"),
            accept=headers.get(b"accept", ""),
            last_event_id=headers.get(b"last-event-id", ""),
        )

    async def _next_event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._reader.read(READ))
        return event

    async def _answer(self, answer: routes.Answer) -> None:
        match answer:
            case Reply():
                await self._send_reply(answer)
            case LongPoll():
                await self._unless_gone(self._send_next(answer))
            case EventStream():
                await self._unless_gone(self._send_events(answer.since))
            case Command():
                await self._send_reply(await self._order(answer))

    async def _order(self, command: Command) -> Reply:
        try:
            async with asyncio.timeout(self._bounds.command):
                uid = _find_user(self._writer)
                return routes.tell(await self._control.ask(command.verb, command.service, uid))
        except TimeoutError:
            message = f"nothing was decided within {self._bounds.command:g} s"
            return routes.fail(503, "E_TIMEOUT", message, "look at extsloaderctl status")

    async def _send_next(self, wish: LongPoll) -> None:
        try:
            async with asyncio.timeout(wish.timeout):
                snapshot = await self._status.wait_beyond(wish.beyond)
        except TimeoutError:
            snapshot = self._status.snapshot()
        await self._send_reply(Reply(200, routes.encode(snapshot)))

    async def _send_events(self, since: int) -> None:
        await self._send(h11.Response(status_code=200, headers=list(STREAM_HEADERS)))
        try:
            while True:
                since = await self._send_changes(since)
        finally:
            # Also when the agent ends: the client sees a complete stream, not a broken one.
            self._writer.write(self._http.send(h11.EndOfMessage()) or b"")

    async def _send_changes(self, since: int) -> int:
        """Send what is new after `since`, or a sign of life; returns the last id sent."""
        try:
            async with asyncio.timeout(self._bounds.beat):
                changes = await self._status.wait_change(since)
        except TimeoutError:
            await self._send(h11.Data(data=b":\n\n"))
            return since
        for change in changes:
            text = b"id: %d\nevent: change\ndata: %s\n\n" % (change.id, routes.encode(change))
            await self._send(h11.Data(data=text))
        return changes[-1].id

    async def _unless_gone(self, answering: Coroutine[None, None, None]) -> None:
        """Await it, but not longer than the client is there to hear it."""
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(_end_quietly(self._watch()))
            work = group.create_task(_end_quietly(answering))
            await asyncio.wait({watch, work}, return_when=asyncio.FIRST_COMPLETED)
            watch.cancel()
            work.cancel()
        if work.cancelled() or not work.result():
            raise GoneError

    async def _watch(self) -> None:
        """Ends when the client is gone, or sends too much ahead of its turn."""
        while data := await self._reader.read(READ):
            self._http.receive_data(data)
            if len(self._http.trailing_data[0]) > self._bounds.head:
                return
        self._http.receive_data(b"")

    async def _send_reply(self, reply: Reply) -> None:
        length = ("Content-Length", str(len(reply.body)))
        kind = (("Content-Type", reply.content_type), ("Cache-Control", "no-store"))
        headers = [*kind, length, *reply.headers]
        if self._http.their_state is not h11.DONE:
            headers.append(("Connection", "close"))  # the rest of the request is not read
        await self._send(h11.Response(status_code=reply.status, headers=headers))
        body = b"" if self._bodiless else reply.body
        for start in range(0, len(body), self._bounds.piece):
            await self._send(h11.Data(data=body[start : start + self._bounds.piece]))
        await self._send(h11.EndOfMessage())

    async def _send(self, event: h11.Event) -> None:
        self._writer.write(self._http.send(event) or b"")
        try:
            async with asyncio.timeout(self._bounds.write):
                await self._writer.drain()
        except TimeoutError:
            self._writer.transport.abort()
            raise GoneError from None

    async def _close(self) -> None:
        self._writer.close()
        try:
            async with asyncio.timeout(1):
                await self._writer.wait_closed()
        except (TimeoutError, ConnectionError):
            self._writer.transport.abort()


def _find_user(writer: asyncio.StreamWriter) -> int:
    """Who connected, as the kernel knows it; the pid beside it means nothing (it is reused)."""
    peer = writer.get_extra_info("socket")
    found = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    _, uid, _ = CREDENTIALS.unpack(found)
    return int(uid)


async def _end_quietly(doing: Coroutine[None, None, None]) -> bool:
    """Await it; false when it found the client gone, which is no error."""
    with suppress(GoneError, ConnectionError):
        await doing
        return True
    return False
