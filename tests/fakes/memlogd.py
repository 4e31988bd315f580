"""A small memlogd: takes named descriptors by its socket, and reads lines from them to their end.

As LinuxKit's: one datagram is a name and one descriptor (SCM_RIGHTS).
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self, TextIO

PATIENCE = 10.0  # seconds


class Memlogd:
    """A process of its own, in that nothing of it depends on the agent's life."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"{path}")
        self._socket.settimeout(PATIENCE)
        self._streams: dict[str, int] = {}

    @classmethod
    @contextmanager
    def listening(cls, path: Path) -> Iterator[Self]:
        memlogd = cls(path)
        try:
            yield memlogd
        finally:
            memlogd.close()

    def read(self, name: str) -> str:
        """All that was written into the newest stream of a name, which everybody has closed."""
        with self.take(name) as stream:
            return stream.read()

    def take(self, name: str) -> TextIO:
        """The newest stream of a name; the caller closes it."""
        while name not in self._streams:
            said, (stream, *_), _, _ = socket.recv_fds(self._socket, 512, 8)
            self._streams[said.decode()] = stream
        return os.fdopen(self._streams.pop(name), encoding="utf-8", errors="replace")

    def close(self) -> None:
        self._socket.close()
        for stream in self._streams.values():
            os.close(stream)
        self._streams.clear()
