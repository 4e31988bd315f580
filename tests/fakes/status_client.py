"""A running status socket over a fake status, and clients that a test opens."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import h11

from extsloader.adapters.status_socket import Bounds, StatusSocket
from tests.fakes.status import FakeControl, FakeStatus


class Client:
    """A unix socket client with h11's view of HTTP."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.http = h11.Connection(h11.CLIENT)

    async def get(self, target: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
        status, _ = await self.ask(target, method, **headers)
        body = b""
        while data := await self.more():
            body += data
        if self.http.our_state is h11.DONE and self.http.their_state is h11.DONE:
            self.http.start_next_cycle()
        return status, body

    async def ask(
        self, target: str, method: str = "GET", **headers: str
    ) -> tuple[int, dict[str, str]]:
        lines = [("Host", "localhost"), *((k.replace("_", "-"), v) for k, v in headers.items())]
        request = h11.Request(method=method, target=target, headers=lines)
        self.writer.write(self.http.send(request) or b"")
        self.writer.write(self.http.send(h11.EndOfMessage()) or b"")
        return await self.head()

    async def head(self) -> tuple[int, dict[str, str]]:
        event = await self._event()
        assert isinstance(event, h11.Response)
        return event.status_code, {k.decode(): v.decode() for k, v in event.headers}

    async def more(self) -> bytes:
        """The next piece of the body, empty at its end."""
        event = await self._event()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def _event(self) -> object:
        while (event := self.http.next_event()) is h11.NEED_DATA:
            self.http.receive_data(await self.reader.read(65536))
        return event


class Place:
    """A running status socket and the clients that a test opened."""

    def __init__(self, status: FakeStatus, path: str, server: StatusSocket) -> None:
        self.status = status
        self.path = path
        self.server = server
        self.control = FakeControl()
        self.writers: list[asyncio.StreamWriter] = []

    async def client(self) -> Client:
        reader, writer = await asyncio.open_unix_connection(self.path)
        self.writers.append(writer)
        return Client(reader, writer)

    async def get(self, target: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
        return await (await self.client()).get(target, method, **headers)

    async def close(self) -> None:
        await self.server.close()
        for writer in self.writers:
            writer.close()


@asynccontextmanager
async def listening(path: str, bounds: Bounds | None = None) -> AsyncIterator[Place]:
    """A status socket that listens at this path."""
    status = FakeStatus()
    control = FakeControl()
    server = await StatusSocket(status, control, path, bounds=bounds).start()
    place = Place(status, path, server)
    place.control = control
    try:
        yield place
    finally:
        await place.close()
