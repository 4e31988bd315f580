"""One subscriber of ours: what it knows, and what it is still to be told.

It is told how things are, not what has happened: so a slow one skips what is no longer so, its
queue is one packet long, and the newest state is never lost.
"""

import asyncio
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from extsloader.adapters.pubsub import packets
from extsloader.adapters.pubsub.packets import Complete, Delete, Hello, Packet, Restarted, Update


@dataclass(slots=True)
class Publication:
    """What there is to be told."""

    topic: str
    plain_hello: bool
    items: dict[str, bytes] = field(default_factory=dict)
    restarted: int = 0


class Told:
    """How much of a publication one subscriber knows."""

    def __init__(self, publication: Publication) -> None:
        self._publication = publication
        self._items: dict[str, bytes] = {}
        self._restarted = 0
        self._greeted = self._complete = False

    def next_packet(self) -> bytes | None:
        """What comes next, as if it were told already; None when everything is."""
        packet = self._next()
        if packet is None:
            return None
        plain = self._publication.plain_hello
        return packets.write(self._publication.topic, packet, plain_hello=plain)

    def _next(self) -> Packet | None:
        if not self._greeted:
            self._greeted = True
            return Hello()
        if change := self._next_change(self._publication.items):
            return change
        if not self._complete:
            self._complete = True
            return Complete()
        if self._restarted != self._publication.restarted:
            self._restarted = self._publication.restarted
            return Restarted(self._restarted)
        return None

    def _next_change(self, items: Mapping[str, bytes]) -> Update | Delete | None:
        """Deletes before updates."""
        for key in self._items:
            if key not in items:
                del self._items[key]
                return Delete(key)
        for key, value in items.items():
            if self._items.get(key) != value:
                self._items[key] = value
                return Update(key, value)
        return None


class Connection:
    """Serves one subscriber on the running loop and never waits for it."""

    def __init__(
        self,
        peer: socket.socket,
        publication: Publication,
        patience: float,
        on_close: Callable[["Connection"], None],
    ) -> None:
        """`patience`: seconds for the request, and for the next packet to find room."""
        self._loop = asyncio.get_running_loop()
        self._peer = peer
        self._request = packets.request(publication.topic)
        self._told = Told(publication)
        self._patience = patience
        self._on_close = on_close
        self._asked = False
        self._waiting: bytes | None = None  # found no room
        self._closed = False
        self._loop.add_reader(peer, self._read)
        self._deadline: asyncio.TimerHandle | None = self._loop.call_later(patience, self.close)

    def flush(self) -> None:
        """Tell what can be told without waiting; the rest follows when there is room."""
        if not self._asked or self._closed:
            return
        while packet := self._waiting or self._told.next_packet():
            try:
                self._peer.send(packet)
            except BlockingIOError:
                self._wait(packet)
                return
            except OSError:  # subscribers leave when they know what they wanted to know
                self.close()
                return
            self._go_on()

    def close(self) -> None:
        """Safe to repeat."""
        if self._closed:
            return
        self._closed = True
        self._cancel_deadline()
        self._loop.remove_reader(self._peer)
        self._loop.remove_writer(self._peer)
        self._peer.close()
        self._on_close(self)

    def _read(self) -> None:
        """One request, and after it nothing but the end."""
        try:
            said = self._peer.recv(packets.MAX_REQUEST)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if self._asked or said != self._request:
            self.close()
            return
        self._asked = True
        self._cancel_deadline()
        self.flush()

    def _wait(self, packet: bytes) -> None:
        if self._waiting is None:
            self._loop.add_writer(self._peer, self.flush)
            self._deadline = self._loop.call_later(self._patience, self.close)
        self._waiting = packet

    def _go_on(self) -> None:
        if self._waiting is not None:
            self._waiting = None
            self._loop.remove_writer(self._peer)
            self._cancel_deadline()

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
