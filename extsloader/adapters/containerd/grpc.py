"""One unary gRPC call on a connection of its own.

HTTP/2 (RFC 9113) with prior knowledge, on a unix socket. A connection for each call costs less
than a millisecond and needs no state: no dynamic tables, no stream numbers, no reconnecting.
"""

import asyncio
import socket
import struct
from collections.abc import Iterator
from urllib.parse import unquote

from extsloader.adapters.containerd import hpack

NAMESPACE = "services.linuxkit"
NOT_FOUND = 5
"""The one code of gRPC that a caller tells apart."""

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
STREAM = 1
HEAD = 9  # bytes before the payload of a frame (4.1)
FRAME = 16384  # bytes that every peer takes in one frame (6.5.2)
WINDOW = 65535  # bytes that may be on their way before the peer says more (6.9.2)
MAX_ANSWER = 16 << 20

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
INITIAL_WINDOW = 4  # a setting
_SETTINGS = struct.pack("!HIHIHI", 1, 0, 2, 0, INITIAL_WINDOW, MAX_ANSWER)
"""No dynamic table, nothing pushed, and room for the largest answer."""


class GrpcError(Exception):
    """The call was answered with an error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message or f"error {code}")
        self.code = code


async def call(path: str, method: str, request: bytes) -> bytes:
    """Ask and wait for the answer, for as long as the caller lets it.

    Raises GrpcError, OSError when nobody is there, and ValueError for a broken answer.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as connection:
        await asyncio.get_running_loop().sock_connect(connection, path)
        return await _Call(connection).ask(method, request)


class _Call:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._received = b""
        self._headers: dict[str, str] = {}
        self._answer = b""
        self._ended = False
        self._window = WINDOW
        self._room = [WINDOW, WINDOW]  # of the connection and of the stream

    async def ask(self, method: str, request: bytes) -> bytes:
        await self._loop.sock_sendall(self._connection, _open(method))
        body = struct.pack("!?I", False, len(request)) + request
        while body and not self._ended:
            part = body[: max(0, min(FRAME, *self._room))]
            if not part:
                await self._hear()
                continue
            self._room = [room - len(part) for room in self._room]
            body = body[len(part) :]
            await self._send(DATA, 0 if body else END_STREAM, STREAM, part)
        while not self._ended:
            await self._hear()
        return self._finish()

    def _finish(self) -> bytes:
        status = int(self._headers.get("grpc-status", "2"))
        if status:
            raise GrpcError(status, unquote(self._headers.get("grpc-message", "")))
        compressed, length = struct.unpack_from("!?I", self._answer.ljust(5, b"\0"))
        if compressed or len(self._answer) != 5 + length:
            raise ValueError("containerd's answer is not one plain message")
        return self._answer[5:]

    async def _send(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        await self._loop.sock_sendall(self._connection, _frame(kind, flags, stream, payload))

    async def _hear(self) -> None:
        """Whatever the peer says next."""
        heard = await self._loop.sock_recv(self._connection, 1 << 16)
        if not heard:
            raise ConnectionResetError("containerd has closed the connection")
        self._received += heard
        for kind, flags, stream, payload in self._take_frames():
            await self._take(kind, flags, stream, payload)

    def _take_frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        while len(self._received) >= HEAD:
            high, low, kind, flags, stream = struct.unpack_from("!BHBBI", self._received)
            end = HEAD + (high << 16 | low)
            if end > HEAD + FRAME:
                raise ValueError("containerd does not speak HTTP/2")
            if len(self._received) < end:
                return
            payload, self._received = self._received[HEAD:end], self._received[end:]
            yield kind, flags, stream, payload

    async def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind in (SETTINGS, PING) and not flags & ACK:
            if kind == SETTINGS:
                self._adjust(payload)
            await self._send(kind, ACK, 0, payload if kind == PING else b"")
        elif kind == WINDOW_UPDATE:
            self._room[min(stream, 1)] += int.from_bytes(payload, "big")
        elif kind in (RST_STREAM, GOAWAY):
            raise ConnectionResetError("containerd has broken off the call")
        elif kind in (HEADERS, DATA):
            self._take_part(kind, flags, payload)

    def _take_part(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == DATA:
            self._answer += payload
        elif flags & END_HEADERS:
            self._headers |= hpack.decode(payload)
        else:
            raise ValueError("containerd's headers are too long")
        self._ended = bool(flags & END_STREAM)

    def _adjust(self, settings: bytes) -> None:
        """The peer's window for a stream is another one than was assumed (6.9.2)."""
        whole = len(settings) // 6 * 6
        for key, value in struct.iter_unpack("!HI", settings[:whole]):
            if key == INITIAL_WINDOW:
                self._room[1] += value - self._window
                self._window = value


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    length = len(payload)
    return struct.pack("!BHBBI", length >> 16, length & 0xFFFF, kind, flags, stream) + payload


def _open(method: str) -> bytes:
    """All that comes before the message."""
    headers = hpack.encode(
        (
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("containerd-namespace", NAMESPACE),
        )
    )
    room = struct.pack("!I", MAX_ANSWER - WINDOW)
    return b"".join(
        (
            _PREFACE,
            _frame(SETTINGS, 0, 0, _SETTINGS),
            _frame(WINDOW_UPDATE, 0, 0, room),
            _frame(HEADERS, END_HEADERS, STREAM, headers),
        )
    )
