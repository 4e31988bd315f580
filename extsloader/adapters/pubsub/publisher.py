"""Publishes one topic to Pillar's agents."""

import asyncio
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from extsloader.adapters.pubsub import packets
from extsloader.adapters.pubsub.checkpoint import Checkpoint
from extsloader.adapters.pubsub.connection import Connection, Publication
from extsloader.adapters.pubsub.listener import STAGE, listen
from extsloader.adapters.pubsub.packets import Update
from extsloader.adapters.pubsub.topic import Topic
from extsloader.model.errors import MachineError
from extsloader.model.pillar import Item
from extsloader.model.reasons import Code

ACCEPT_AGAIN = 1.0  # seconds, when there are no descriptors left


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What subscribers may cost."""

    connections: int = 32  # Pillar has three
    patience: float = 30.0  # seconds for a request, and for one that does not read


class Publisher:
    """One topic, not persistent. All calls belong to the loop's thread."""

    def __init__(
        self, topic: Topic, bounds: Bounds | None = None, *, plain_hello: bool = False
    ) -> None:
        self._topic = topic
        self._bounds = bounds or Bounds()
        self._checkpoint = Checkpoint(topic.directory)
        self._publication = Publication(topic.name, plain_hello)
        self._connections: set[Connection] = set()
        self._listener: socket.socket | None = None
        self._identity = (0, 0)

    def open(self, items: Mapping[str, Item]) -> None:
        """Write the first items, then listen: nobody is ever told what an earlier agent said.

        Raises MachineError: E_BUSY while another publisher of this topic lives.
        """
        for key, item in items.items():
            self._check_size(key, item)
        self._listener = listen(self._topic.socket)
        info = os.lstat(self._topic.socket)
        self._identity = (info.st_dev, info.st_ino)
        try:
            files = {key: item.file for key, item in items.items()}
            self._publication.restarted = self._checkpoint.begin(files)
        except OSError as error:
            self.close()
            raise _fail(error) from error
        self._publication.items.update({key: item.wire for key, item in items.items()})
        self._accept_from_now()

    def publish(self, key: str, item: Item) -> None:
        """Tell it to everybody. Raises MachineError when only its file could not be written."""
        self._check_size(key, item)
        self._publication.items[key] = item.wire
        try:
            self._checkpoint.write(key, item.file)
        except OSError as error:
            raise _fail(error) from error
        finally:
            self._flush()

    def unpublish(self, key: str) -> None:
        """There is no such item any more. Raises MachineError for the file."""
        self._publication.items.pop(key, None)
        try:
            self._checkpoint.remove(key)
        except OSError as error:
            raise _fail(error) from error
        finally:
            self._flush()

    def signal_restarted(self) -> None:
        """Everything that was known before this agent's start has been told anew.

        Raises MachineError for the file.
        """
        self._set_restarted(self._publication.restarted + 1)

    def close(self) -> None:
        """Take leave of the subscribers; files stay. Raises nothing."""
        if self._listener is None:
            return
        with suppress(MachineError):
            self._set_restarted(0)
        asyncio.get_running_loop().remove_reader(self._listener)
        with suppress(OSError):
            info = os.lstat(self._topic.socket)
            if (info.st_dev, info.st_ino) == self._identity:
                self._topic.socket.unlink()
        self._listener.close()
        self._listener = None
        for connection in tuple(self._connections):
            connection.close()

    def _set_restarted(self, count: int) -> None:
        self._publication.restarted = count
        try:
            self._checkpoint.write_restarted(count)
        except OSError as error:
            raise _fail(error) from error
        finally:
            self._flush()

    def _flush(self) -> None:
        for connection in tuple(self._connections):
            connection.flush()

    def _accept_from_now(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    def _accept(self, listener: socket.socket) -> None:
        try:
            peer, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError:  # EMFILE: it stays readable, and the loop would spin
            loop = asyncio.get_running_loop()
            loop.remove_reader(listener)
            loop.call_later(ACCEPT_AGAIN, self._accept_from_now)
            return
        peer.setblocking(False)
        if len(self._connections) >= self._bounds.connections:
            peer.close()
            return
        self._connections.add(
            Connection(peer, self._publication, self._bounds.patience, self._connections.discard)
        )

    def _check_size(self, key: str, item: Item) -> None:
        size = len(packets.write(self._topic.name, Update(key, item.wire)))
        if size > packets.MAX_PACKET:
            reason = f"at most {packets.MAX_PACKET} bytes expected, {size} got"
            raise MachineError(Code.LIMIT, STAGE, reason)


def _fail(error: OSError) -> MachineError:
    reason = (error.strerror or "").lower()
    return MachineError(Code.STATE, STAGE, f"{error.filename}: {reason}")
