"""The other end of a publication, as far as a test wants to play it by hand."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from extsloader.adapters.pubsub import Publisher, Subscriber, Topic
from extsloader.model.pillar import Item

PATIENCE = 10.0  # seconds; everything here takes milliseconds


def topic(run: Path, agent: str = "extsloader", name: str = "ExtsloaderStatus") -> Topic:
    return Topic(agent=agent, name=name, run=str(run))


def item(json: bytes = b'{"State":0}') -> Item:
    return Item(wire=json, file=json)


class Peer:
    """A SEQPACKET socket whose every packet a test sees."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.setblocking(False)

    @classmethod
    async def dial(cls, topic: Topic, *, request: bytes | None = None) -> "Peer":
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.connect(str(topic.socket))
        peer = cls(sock)
        await peer.say(request if request is not None else b"request " + topic.name.encode())
        return peer

    async def say(self, packet: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, packet)

    async def hear(self) -> bytes:
        """The next packet; empty at the end."""
        async with asyncio.timeout(PATIENCE):
            try:
                return await asyncio.get_running_loop().sock_recv(self.sock, 1 << 17)
            except ConnectionResetError:  # the other end had not read all that was said
                return b""

    async def hear_all(self, last: bytes) -> list[bytes]:
        heard = [await self.hear()]
        while heard[-1] != last:
            assert heard[-1], f"it ended before {last!r}: {heard}"
            heard.append(await self.hear())
        return heard

    def close(self) -> None:
        self.sock.close()


class Listener:
    """A publisher that a test plays by hand."""

    def __init__(self, topic: Topic) -> None:
        topic.socket.parent.mkdir(parents=True, exist_ok=True)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.bind(str(topic.socket))
        self.sock.listen(4)
        self.sock.setblocking(False)
        self._peers: list[Peer] = []

    async def accept(self) -> Peer:
        async with asyncio.timeout(PATIENCE):
            sock, _ = await asyncio.get_running_loop().sock_accept(self.sock)
        self._peers.append(Peer(sock))
        return self._peers[-1]

    def close(self) -> None:
        self.sock.close()
        for peer in self._peers:
            peer.close()


class Ear:
    """A subscriber and what it has heard."""

    def __init__(self, topic: Topic) -> None:
        self.items: Mapping[str, bytes] = {}
        self.told = 0
        self.odd: list[str] = []
        self._changed = asyncio.Event()
        self.subscriber = Subscriber(topic, redial=(0.0, 0.01))

    def start(self) -> None:
        self.subscriber.start(self._take, self._take_odd)

    def _take(self, items: Mapping[str, bytes]) -> None:
        self.items = items
        self.told += 1
        self._changed.set()

    def _take_odd(self, reason: str) -> None:
        self.odd.append(reason)
        self._changed.set()

    async def until(self, is_so: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not is_so():
                self._changed.clear()
                await self._changed.wait()

    async def until_heard(self, **items: bytes) -> None:
        await self.until(lambda: self.items == items)


@contextlib.asynccontextmanager
async def hearing(topic: Topic) -> AsyncIterator[Ear]:
    ear = Ear(topic)
    ear.start()
    try:
        yield ear
    finally:
        ear.subscriber.close()


@contextlib.asynccontextmanager
async def publishing(publisher: Publisher, **items: Item) -> AsyncIterator[Publisher]:
    publisher.open(items)
    try:
        yield publisher
    finally:
        publisher.close()
