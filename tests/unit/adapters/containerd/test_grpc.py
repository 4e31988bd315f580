"""One call, against peers that are not as containerd is."""

import asyncio
import struct
from pathlib import Path

import pytest
from hpack import Encoder

from extsloader.adapters.containerd import grpc
from extsloader.adapters.containerd.grpc import GrpcError, call

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8


def pack(*headers: tuple[str, str]) -> bytes:
    return Encoder().encode(headers)


STATUS = (":status", "200")
OK = pack(("grpc-status", "0"))
GONE = pack(STATUS, ("grpc-status", "5"), ("grpc-message", "not%20found"))
ANSWER = struct.pack("!?I", False, 2) + b"hi"


def frame(kind: int, flags: int, payload: bytes, stream: int = 1) -> bytes:
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


HEAD = frame(SETTINGS, 0, b"", 0) + frame(HEADERS, 4, pack(STATUS))
TAIL = frame(HEADERS, 5, OK)


async def ask(path: Path, *said: bytes) -> tuple[bytes, bytes]:
    """Call a peer that says each when it is told something, and hangs up; and what it was told."""
    heard = bytearray()
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for one in said:
            heard.extend(await reader.read(1 << 20))
            writer.write(one)
        writer.write_eof()
        heard.extend(await reader.read())
        writer.close()
        done.set()

    server = await asyncio.start_unix_server(serve, path / "s")
    async with server, asyncio.timeout(10):
        try:
            answer = await call(f"{path}/s", "/service/Method", b"x")
        finally:
            await done.wait()
        return answer, bytes(heard)


async def test_an_answer_in_pieces(tmp_path: Path) -> None:
    pieces = b"".join(frame(DATA, 0, bytes([byte])) for byte in ANSWER)
    answer, heard = await ask(tmp_path, HEAD + pieces + TAIL)
    assert answer == b"hi"
    assert heard.startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert pack(("containerd-namespace", "services.linuxkit"))[1:] in heard


async def test_an_error_without_an_answer(tmp_path: Path) -> None:
    with pytest.raises(GrpcError, match="not found") as found:
        await ask(tmp_path, frame(HEADERS, 5, GONE))
    assert found.value.code == grpc.NOT_FOUND


async def test_a_ping_is_answered_and_an_answer_is_not(tmp_path: Path) -> None:
    pings = frame(PING, 0, b"12345678", 0) + frame(PING, 1, b"abcdefgh", 0)
    _, heard = await ask(tmp_path, HEAD + pings, frame(DATA, 0, ANSWER) + TAIL)
    assert frame(PING, 1, b"12345678", 0) in heard
    assert b"abcdefgh" not in heard


@pytest.mark.parametrize(
    ("said", "error"),
    [
        pytest.param(b"", ConnectionResetError, id="nothing"),
        pytest.param(HEAD, ConnectionResetError, id="no answer"),
        pytest.param(HEAD + frame(RST_STREAM, 0, bytes(4)), ConnectionResetError, id="reset"),
        pytest.param(HEAD + frame(GOAWAY, 0, bytes(8), 0), ConnectionResetError, id="bye"),
        pytest.param(HEAD + TAIL, ValueError, id="good without a message"),
        pytest.param(HEAD + frame(DATA, 0, ANSWER[:-1]) + TAIL, ValueError, id="cut"),
        pytest.param(HEAD + frame(DATA, 0, b"\1" + ANSWER[1:]) + TAIL, ValueError, id="gzip"),
        pytest.param(frame(HEADERS, 5, b"\xff"), ValueError, id="bad headers"),
        pytest.param(
            frame(HEADERS, 5, pack(STATUS, ("grpc-status", "?"))), ValueError, id="status"
        ),
        pytest.param(bytes(9), ValueError, id="no HTTP/2"),
    ],
)
async def test_a_broken_peer_is_an_error(
    tmp_path: Path, said: bytes, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await ask(tmp_path, said)


async def test_nobody_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await call(f"{tmp_path}/s", "/service/Method", b"")


async def test_a_peer_that_says_nothing_is_left_when_the_caller_likes(tmp_path: Path) -> None:
    left = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        left.set()

    server = await asyncio.start_unix_server(serve, tmp_path / "s")
    async with server:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await call(f"{tmp_path}/s", "/service/Method", b"")
        async with asyncio.timeout(10):
            await left.wait()


async def test_no_more_is_sent_than_the_peer_has_room_for(tmp_path: Path) -> None:
    """It has none until it says so, for the stream and for the connection."""
    sizes: list[int] = []
    left = asyncio.Event()

    async def read_until(reader: asyncio.StreamReader, size: int) -> None:
        while sum(sizes) < size:
            _, low, kind, _, _ = struct.unpack("!BHBBI", await reader.readexactly(9))
            await reader.readexactly(low)
            if kind == DATA:
                sizes.append(low)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(24)
        writer.write(frame(SETTINGS, 0, struct.pack("!HI", 4, 100_000), 0))
        await read_until(reader, 65_535)
        writer.write(frame(WINDOW_UPDATE, 0, struct.pack("!I", 50_000), 0))
        await read_until(reader, 80_005)
        writer.write(HEAD + frame(DATA, 0, ANSWER) + TAIL)
        await reader.read()
        writer.close()
        left.set()

    server = await asyncio.start_unix_server(serve, tmp_path / "s")
    async with server, asyncio.timeout(10):
        assert await call(f"{tmp_path}/s", "/service/Method", b"x" * 80_000) == b"hi"
        await left.wait()
    assert (max(sizes), sum(sizes)) == (16_384, 80_005)
