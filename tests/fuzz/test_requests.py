"""Made-up requests to the status socket: each has an answer in HTTP, or its client is left."""

import asyncio
import socket

import h11
from hypothesis import strategies as st

from extsloader.adapters.status_socket import Bounds
from extsloader.adapters.status_socket.connection import Connection
from tests.fakes.status import FakeControl, FakeStatus
from tests.fuzz.budget import fuzz, spoiled

GOOD = (
    b"GET /v1/status?beyond=0&timeout=0 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v1/services/collector/explain HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n",
    b"GET /v1/events HTTP/1.1\r\nHost: x\r\nLast-Event-ID: 1\r\nAccept: text/event-stream\r\n\r\n",
    b"POST /v1/rescan HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /v1/services/collector/stop HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
    b"HEAD /v1/healthz HTTP/1.0\r\nConnection: close\r\n\r\n",
)
CODES = {200, 202, 400, 403, 404, 405, 406, 408, 413, 414, 431, 501, 505}
BOUNDS = Bounds(request=0.2, idle=0.05, write=0.2, beat=0.05)


async def converse(raw: bytes) -> bytes:
    """Everything that is answered to a client that says this and closes its side."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    answered, sender = await asyncio.open_unix_connection(sock=theirs)
    sender.write(raw)
    sender.write_eof()
    connection = Connection(FakeStatus(), FakeControl(), reader, writer, BOUNDS)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(connection.serve())
        answer = await answered.read()
    sender.close()
    return answer


def test_what_is_wrong_with_a_head_is_told_without_a_body() -> None:
    head = b"HEAD /v1/healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
    answer = asyncio.run(converse(head))
    assert answer.startswith(b"HTTP/1.1 413")
    assert answer.endswith(b"\r\n\r\n")


def test_requests() -> None:
    def attempt(raw: bytes) -> None:
        answer = runner.run(converse(raw))
        if answer:
            client = h11.Connection(h11.CLIENT)
            client.receive_data(answer)
            client.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
            response = client.next_event()
            assert isinstance(response, h11.Response)
            assert response.status_code in CODES

    one = st.sampled_from(GOOD).flatmap(spoiled)
    several = st.lists(one | st.sampled_from(GOOD), max_size=4).map(b"".join)
    with asyncio.Runner() as runner:
        fuzz(several | st.binary(max_size=100), attempt)
