"""Hears one topic of one of Pillar's agents, whenever that agent is there."""

import asyncio
import socket
from collections.abc import Callable, Mapping

from extsloader.adapters.pubsub import packets
from extsloader.adapters.pubsub.packets import Complete, Delete, Hello, Restarted, Update
from extsloader.adapters.pubsub.topic import Topic

REDIAL = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds before each further try; the last one for ever. Go: at once, then every 10 s."""

MAX_ITEMS = 256
MAX_BYTES = 1 << 20  # of all items
BUFFER = packets.MAX_PACKET + 2  # what fills it was cut


class Subscriber:
    """Keeps the items of the topic; all calls belong to the loop's thread."""

    def __init__(self, topic: Topic, redial: tuple[float, ...] = REDIAL) -> None:
        self._topic = topic
        self._redial = redial
        self._on_items: Callable[[Mapping[str, bytes]], None] = lambda _items: None
        self._on_odd: Callable[[str], None] = lambda _reason: None
        self._items: dict[str, bytes] = {}
        self._fresh: set[str] | None = None  # told since the connection began; None: synchronised
        self._tries = 0
        self._said_odd = False
        self._peer: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(
        self, on_items: Callable[[Mapping[str, bytes]], None], on_odd: Callable[[str], None]
    ) -> None:
        """Connect, now or when the publisher is there.

        `on_items` gets all items after each change; `on_odd` once a connection what is wrong.
        """
        self._on_items, self._on_odd = on_items, on_odd
        self._dial()

    def close(self) -> None:
        """Hear nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._hang_up()

    def _dial(self) -> None:
        self._timer = None
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            peer.connect(str(self._topic.socket))
            peer.send(packets.request(self._topic.name))
        except OSError:  # EAGAIN among them: its backlog is full
            peer.close()
            self._try_again()
            return
        self._peer, self._fresh, self._said_odd = peer, set(), False
        asyncio.get_running_loop().add_reader(peer, self._read, peer)

    def _hang_up(self) -> None:
        if self._peer is not None:
            asyncio.get_running_loop().remove_reader(self._peer)
            self._peer.close()
            self._peer = None

    def _try_again(self) -> None:
        pause = self._redial[min(self._tries, len(self._redial) - 1)]
        self._tries += 1
        self._timer = asyncio.get_running_loop().call_later(pause, self._dial)

    def _read(self, peer: socket.socket) -> None:
        """One packet for each turn of the loop: a flood must not hold up the others."""
        try:
            raw = peer.recv(BUFFER)
        except BlockingIOError:
            return
        except OSError:
            raw = b""
        if not raw:  # what is known stays known, as the publisher may be back in a moment
            self._hang_up()
            self._try_again()
            return
        try:
            changed = self._take(packets.read(self._topic.name, raw))
        except ValueError as error:
            self._say_odd(str(error))
            return
        if changed:
            self._on_items(dict(self._items))

    def _take(self, packet: packets.Packet) -> bool:
        """Whether the items are others now. Raises ValueError."""
        match packet:
            case Update(key, value):
                return self._put(key, value)
            case Delete(key):
                return self._items.pop(key, None) is not None
            case Complete():
                return self._sweep()
            case Hello() | Restarted():
                return False

    def _put(self, key: str, value: bytes) -> bool:
        if self._fresh is not None:
            self._fresh.add(key)
        if self._items.get(key) == value:
            return False
        others = {k: v for k, v in self._items.items() if k != key}
        size = sum(map(len, others.values())) + len(value)
        if len(others) >= MAX_ITEMS or size > MAX_BYTES:
            raise ValueError(f"more than {MAX_ITEMS} items, or {MAX_BYTES} bytes of them")
        self._items[key] = value
        return True

    def _sweep(self) -> bool:
        """What the publisher has not told in this connection is not there any more."""
        self._tries = 0
        if self._fresh is None:
            return False
        gone = self._items.keys() - self._fresh
        self._fresh = None
        for key in gone:
            del self._items[key]
        return bool(gone)

    def _say_odd(self, reason: str) -> None:
        if not self._said_odd:
            self._said_odd = True
            self._on_odd(f"{self._topic.socket}: {reason}")
