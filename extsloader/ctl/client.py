"""Asks the daemon: one connection a question, HTTP by h11, answers as the model's dataclasses."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import TypeVar

import h11
import msgspec

from extsloader.model.control import Answer

T = TypeVar("T")

ANSWER_TIME = 5.0  # seconds on top of what the daemon was asked to wait
GOOD = (200, 202)  # OK and Accepted (RFC 9110, 15.3)
MAX_ANSWER = 16 << 20  # bytes
Headers = tuple[tuple[str, str], ...]


class UnreachableError(Exception):
    """No daemon answers. `passing` when one that is just starting looks the same."""

    def __init__(self, message: str, hint: str, *, passing: bool = False) -> None:
        super().__init__(message)
        self.hint = hint
        self.passing = passing


class RefusedError(Exception):
    """The daemon says no."""

    def __init__(self, failure: "Failure") -> None:
        super().__init__(failure.message)
        self.code = failure.code
        self.hint = failure.hint


class Failure(msgspec.Struct, frozen=True):
    """The body of an answer that says no."""

    code: str = ""
    message: str = "the daemon's answer cannot be read"
    hint: str = ""


class Client:
    """Asks the daemon behind one socket."""

    def __init__(self, path: str) -> None:
        self._path = path

    def get(self, target: str, headers: Headers = (), *, wait: float = 0.0) -> bytes:
        """The body of the answer. Raises UnreachableError and RefusedError."""
        body = b""
        for piece in self.stream(target, headers, wait=wait):
            body += piece
            if len(body) > MAX_ANSWER:
                raise self._strange("more than 16 MiB")
        return body

    def ask(self, target: str, kind: type[T], *, wait: float = 0.0) -> T:
        """The answer as `kind`. Raises UnreachableError and RefusedError."""
        return self.decode(self.get(target, (("Accept", "application/json"),), wait=wait), kind)

    def decode(self, body: bytes, kind: type[T]) -> T:
        """The dataclass that an answer holds. Raises UnreachableError."""
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.DecodeError as error:
            raise self._strange(str(error)) from error

    def order(self, target: str, *, wait: float) -> Answer:
        """What came of something that changes the agent. Raises as `get` does."""
        body = b"".join(self.stream(target, method="POST", wait=wait))
        return self.decode(body, Answer)

    def stream(
        self,
        target: str,
        headers: Headers = (),
        *,
        method: str = "GET",
        wait: float | None = 0.0,
    ) -> Iterator[bytes]:
        """The body as it comes; `wait` None: without end. Raises as `get` does."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(None if wait is None else ANSWER_TIME + wait)
            http = h11.Connection(h11.CLIENT)
            try:
                connection.connect(self._path)
                request = h11.Request(
                    method=method,
                    target=target,
                    headers=[("Host", "localhost"), ("Connection", "close"), *headers],
                )
                self._send(connection, http, request)
                yield from self._receive(connection, http)
            except OSError as error:
                raise self._unreachable(error) from error
            except h11.RemoteProtocolError as error:
                raise self._strange(str(error)) from error

    def _send(self, connection: socket.socket, http: h11.Connection, request: h11.Request) -> None:
        data = (http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b"")
        # A daemon with too many clients answers and closes without having read: look at that.
        with suppress(BrokenPipeError):
            connection.sendall(data)

    def _receive(self, connection: socket.socket, http: h11.Connection) -> Iterator[bytes]:
        refused = False
        said = b""
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(connection.recv(65536))
            elif isinstance(event, h11.Response):
                refused = event.status_code not in GOOD
            elif isinstance(event, h11.Data) and refused:
                said += event.data
            elif isinstance(event, h11.Data):
                yield bytes(event.data)
            elif refused:
                raise RefusedError(self.decode(said, Failure))
            else:
                return

    def _unreachable(self, error: OSError) -> UnreachableError:
        path = self._path
        if isinstance(error, TimeoutError):
            hint = "it may be stopped or overloaded: systemctl status extsloaderd"
            return UnreachableError(f"the daemon at {path} does not answer", hint, passing=True)
        reason = error.strerror or str(error)
        if error.errno in {errno.ENOENT, errno.ECONNREFUSED, errno.ECONNRESET}:
            hint = "is extsloaderd running? systemctl status extsloaderd"
            return UnreachableError(f"no daemon at {path}: {reason}", hint, passing=True)
        hint = "run it as root or as a member of the configured socket_group"
        if error.errno != errno.EACCES or os.geteuid() == 0:
            hint = "look at --socket and EXTSLOADER_SOCKET"
        return UnreachableError(f"cannot reach the daemon at {path}: {reason}", hint)

    def _strange(self, reason: str) -> UnreachableError:
        hint = "are extsloaderctl and extsloaderd of the same version?"
        message = f"cannot read the answer of the daemon at {self._path}: {reason}"
        return UnreachableError(message, hint, passing=True)
