"""One unary gRPC call on a connection of its own, HTTP/2 by h2.

With prior knowledge (RFC 9113, 3.3), on a unix socket. A connection for each call costs about a
millisecond and needs no state: no stream numbers, no reconnecting.
"""

import asyncio
import socket
import struct
from collections.abc import Iterable
from urllib.parse import unquote

from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import H2Error
from h2.settings import SettingCodes, Settings

NAMESPACE = "services.linuxkit"
NOT_FOUND = 5
"""The one code of gRPC that a caller tells apart."""

STREAM = 1
MAX_ANSWER = 16 << 20
_SETTINGS = {SettingCodes.ENABLE_PUSH: 0, SettingCodes.INITIAL_WINDOW_SIZE: MAX_ANSWER}


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
        try:
            return await _Call(connection).ask(method, request)
        except H2Error as error:
            raise ValueError(f"containerd does not speak HTTP/2: {error}") from error


class _Call:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._http = H2Connection()
        self._headers: dict[bytes, bytes] = {}
        self._answer = b""
        self._ended = False

    async def ask(self, method: str, request: bytes) -> bytes:
        self._open(method)
        body = struct.pack("!?I", False, len(request)) + request
        while body and not self._ended:
            room = self._http.local_flow_control_window(STREAM)  # below 0 after some settings
            part = body[: max(0, min(room, self._http.max_outbound_frame_size))]
            if part:
                body = body[len(part) :]
                self._http.send_data(STREAM, part, end_stream=not body)
            else:
                await self._hear()
        while not self._ended:
            await self._hear()
        return self._finish()

    def _open(self, method: str) -> None:
        """All that comes before the message."""
        self._http.local_settings = Settings(client=True, initial_values=_SETTINGS)
        self._http.initiate_connection()
        self._http.increment_flow_control_window(MAX_ANSWER)
        headers = (
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("containerd-namespace", NAMESPACE),
        )
        self._http.send_headers(STREAM, headers)

    async def _hear(self) -> None:
        """Say what is to be said, and take whatever the peer says next."""
        await self._loop.sock_sendall(self._connection, self._http.data_to_send())
        heard = await self._loop.sock_recv(self._connection, 1 << 16)
        if not heard:
            raise ConnectionResetError("containerd has closed the connection")
        self._take(self._http.receive_data(heard))

    def _take(self, events: Iterable[Event]) -> None:
        for event in events:
            match event:
                case ResponseReceived() | TrailersReceived():
                    self._headers |= dict(event.headers)
                case DataReceived():
                    self._answer += event.data
                case StreamEnded():
                    self._ended = True
                    return
                case StreamReset() | ConnectionTerminated():
                    raise ConnectionResetError("containerd has broken off the call")
                case _:
                    pass

    def _finish(self) -> bytes:
        status = int(self._headers.get(b"grpc-status", b"2"))
        if status:
            raise GrpcError(status, unquote(self._headers.get(b"grpc-message", b"")))
        compressed, length = struct.unpack_from("!?I", self._answer.ljust(5, b"\0"))
        if compressed or len(self._answer) != 5 + length:
            raise ValueError("containerd's answer is not one plain message")
        return self._answer[5:]
