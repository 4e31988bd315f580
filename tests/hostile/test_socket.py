"""Hostile clients of the real status socket: each is dropped or told no, the others are served.

The table speaks of lines of JSON; what it means is told here in HTTP.
"""

import array
import asyncio
import gc
import json
import os
import resource
import socket
import struct
import sys
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from extsloader.adapters.status_socket import Bounds, routes
from extsloader.core import engine
from extsloader.model import effects as fx
from extsloader.model.events import Asked
from extsloader.model.history import Hold
from extsloader.model.ids import ServiceName
from extsloader.model.status import StatusSnapshot
from extsloader.runtime.control import Control
from tests.fakes import builders, worlds
from tests.fakes.status import READY
from tests.fakes.status_client import Client, Place, listening

pytestmark = [pytest.mark.hostile, pytest.mark.timeout(60)]

LINE = b"GET /v1/%s HTTP/1.1\r\nHost: x\r\n\r\n"
GET = LINE % b"healthz"
NOBODY = 65534


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    bounds = Bounds(request=0.3, idle=0.3, write=0.3, beat=0.2)
    async with listening(f"{tmp_path}/s.sock", bounds) as place:
        yield place


async def others_are_served(place: Place) -> bool:
    client = await place.client()
    code, _ = await client.get("/v1/healthz")
    client.writer.close()
    await client.writer.wait_closed()
    return code == 200


async def read_until_closed(client: Client) -> bytes:
    """All that comes; a close with unread bytes at the other end shows as a reset (unix(7))."""
    received = b""
    with suppress(ConnectionError):
        while data := await client.reader.read(65536):
            received += data
    return received


async def until_served(place: Place) -> None:
    """The server has let go of all clients."""
    while clients := tuple(place.server._clients):
        await asyncio.wait(clients)


def count_descriptors() -> int:
    return len(tuple(Path("/proc/self/fd").iterdir()))


@contextmanager
def raw(place: Place) -> Iterator[socket.socket]:
    """A client that reads only what a test reads."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(place.path)
        client.setblocking(False)
        yield client


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"", id="h151-nothing"),
        pytest.param(b"GET /v1/status HTTP/1.1\r\nHo", id="h151-half-a-request"),
    ],
)
async def test_who_does_not_finish_is_closed_at_the_deadline(place: Place, said: bytes) -> None:
    client = await place.client()
    client.writer.write(said)
    assert await others_are_served(place)
    assert (await read_until_closed(client)).startswith(b"HTTP/1.1 408 ")


async def test_h151_a_byte_now_and_then_gains_no_time(place: Place) -> None:
    """A deadline for each byte, not for the whole, would never pass."""
    client = await place.client()
    end = asyncio.gather(read_until_closed(client))
    while not end.done():
        with suppress(ConnectionError):
            client.writer.write(b"X")
        assert await others_are_served(place)
    assert b" 408 " in end.result()[0]


async def test_h151_silent_clients_keep_everybody_out_only_until_the_deadline(
    place: Place,
) -> None:
    for _ in range(Bounds().clients):
        await place.client()
    assert not await others_are_served(place)
    while not await others_are_served(place):
        pass


@pytest.mark.parametrize("size", [(64 << 10) + 1, 10 << 20], ids=["h152-64-kib", "h152-10-mb"])
async def test_a_line_without_end_is_refused_and_not_kept(place: Place, size: int) -> None:
    client = await place.client()
    client.writer.write(b"a" * size)
    answer = await read_until_closed(client)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"E_LIMIT" in answer
    assert await others_are_served(place)


NO_REQUESTS = [
    pytest.param(b"GET /v1/\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400, id="h153-utf8"),
    pytest.param(b"GET /v1/status\0 HTTP/1.1\r\nHost: x\r\n\r\n", 400, id="h153-nul"),
    pytest.param(b"\xef\xbb\xbf" + GET, 400, id="h153-bom"),
    pytest.param(b"[]\r\n\r\n", 400, id="h153-list"),
    pytest.param(b"null\r\n\r\n", 400, id="h153-null"),
    pytest.param(b"7\r\n\r\n", 400, id="h153-number"),
    pytest.param(b"[null]\r\n\r\n", 400, id="h153-list-of-null"),
    pytest.param(b"[" * 100_000, 431, id="h153-depth"),
    pytest.param(GET[:-2] + b"Host: y\r\n\r\n", 400, id="h153-two-hosts"),
    pytest.param(LINE % b"events?since=1&since=2", 400, id="h153-duplicate-parameter"),
    pytest.param(
        GET[:-2] + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, id="h153-two-lengths"
    ),
    pytest.param(GET[:-2] + b"Content-Length: 3\r\n\r\nabc", 413, id="h153-body"),
    pytest.param(GET[:-2] + b"Transfer-Encoding: x\r\n\r\n", 501, id="h153-encoding"),
    pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400, id="h153-tls"),
    pytest.param(b"GET /v1/status HTTP/1.1\r\n\r\n", 400, id="h153-no-host"),  # RFC 9112, 3.2
    pytest.param(b"GET /v1/status\r\n\r\n", 400, id="h153-no-version"),
    pytest.param(GET.replace(b"GET", b"BREW"), 405, id="h154-unknown-verb"),
    pytest.param(GET.replace(b"GET", b"7"), 405, id="h154-verb-of-digits"),
    pytest.param(GET.replace(b"GET", b"__init__"), 405, id="h154-dunder"),
    pytest.param(GET.replace(b"GET", b"B" * (1 << 20)), 431, id="h154-1-mb-verb"),
    pytest.param(LINE % b"run", 404, id="h154-run"),
    pytest.param(LINE % b"../x", 404, id="h154-dots"),
    pytest.param(LINE % b"services/webui/__init__", 404, id="h154-dunder-path"),
    pytest.param(LINE % b"services/..%2f..%2fetc%2fshadow/explain", 404, id="h162-name"),
    pytest.param(LINE % b"events?since=-1", 400, id="h162-negative"),
    pytest.param(LINE % b"events?since=18446744073709551616", 400, id="h162-64-bits"),
]


@pytest.mark.parametrize(("said", "code"), NO_REQUESTS)
async def test_what_is_no_request_is_refused(place: Place, said: bytes, code: int) -> None:
    client = await place.client()
    client.writer.write(said)
    answer = await client.reader.read(65536)
    assert answer.startswith(b"HTTP/1.1 %d " % code)
    assert json.loads(answer.partition(b"\r\n\r\n")[2] or await client.reader.read(65536))["code"]
    assert await others_are_served(place)
    assert not place.control.asked


class Deciding:
    """The control port over the real core: one world, and one request after another."""

    def __init__(self) -> None:
        self.world = worlds.running(builders.service("webui"))
        self.audited: list[str] = []
        self.control = Control(self._put)
        self.ask = self.control.ask

    def _put(self, asked: Asked) -> None:
        step = engine.step(self.world, asked, builders.moment(3))
        self.world = step.world
        for effect in step.effects:
            if isinstance(effect, fx.Record) and effect.change.subject.startswith("operator"):
                self.audited.append(effect.change.subject)
            if isinstance(effect, fx.Reply):
                self.control.reply(effect.request, effect.answer)


@pytest.fixture
async def deciding(place: Place) -> Deciding:
    found = Deciding()
    place.server._control = found
    return found


@contextmanager
def somebody_else() -> Iterator[None]:
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def let_everybody_in(path: Path) -> None:
    path.parent.chmod(0o755)
    path.chmod(0o666)


@pytest.fixture
async def open_place(deciding: Deciding) -> AsyncIterator[Place]:
    """Where everybody may connect, as if he were of the socket's group."""
    with TemporaryDirectory(prefix="extst-") as name:
        async with listening(f"{name}/s.sock") as place:
            with somebody_else(), pytest.raises(PermissionError):
                await place.client()
            let_everybody_in(Path(place.path))
            place.server._control = deciding
            yield place


@pytest.mark.root
async def test_h155_who_is_not_root_changes_nothing_and_is_written_down(
    open_place: Place, deciding: Deciding
) -> None:
    with somebody_else():
        client = await open_place.client()
    code, body = await client.get("/v1/services/webui/stop", "POST", Uid="0")
    assert (code, json.loads(body)["code"]) == (403, "E_DENIED")
    assert deciding.audited == [f"operator uid {NOBODY}"]
    assert not deciding.world.history.holds


IN_A_NAMESPACE = """
import ctypes, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
libc.prctl(4, 1)  # PR_SET_DUMPABLE: else /proc/self is root's
if libc.unshare(0x10000000 | 0x20000000):  # CLONE_NEWUSER, CLONE_NEWPID
    sys.exit(77)
open("/proc/self/uid_map", "w").write("0 65534 1")
if pid := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
assert (os.getuid(), os.getpid()) == (0, 1), "it believes to be root and init"
with socket.socket(socket.AF_UNIX) as client:
    client.connect(sys.argv[1])
    client.sendall(b"POST /v1/services/webui/stop HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    print(client.recv(4096).decode().split()[1], flush=True)
"""


@pytest.mark.root
async def test_h163_root_of_another_namespace_is_nobody_here(
    open_place: Place, deciding: Deciding
) -> None:
    argv = (sys.executable, "-c", IN_A_NAMESPACE, open_place.path)
    child = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    said, _ = await child.communicate()
    if child.returncode == 77:
        pytest.skip("this kernel lets nobody make user namespaces")
    assert said == b"403\n"
    assert deciding.audited == [f"operator uid {NOBODY}"]


async def test_h161_of_two_changes_at_once_the_second_finds_nothing_to_do(
    place: Place, deciding: Deciding
) -> None:
    target = "/v1/services/webui/pause"
    answers = await asyncio.gather(place.get(target, "POST"), place.get(target, "POST"))
    assert sorted(json.loads(body)["result"] for _, body in answers) == ["accepted", "already"]
    assert deciding.world.history.holds == {ServiceName("webui"): Hold.PAUSED}


MOST = 253  # descriptors in one message (unix(7), SCM_MAX_FD)


def rights(*descriptors: int) -> tuple[int, int, bytes]:
    return socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors).tobytes()


async def test_h156_descriptors_sent_along_never_arrive(place: Place) -> None:
    before = count_descriptors()
    here, there = os.pipe()
    device = os.open("/dev/null", os.O_RDONLY)
    with raw(place) as client:
        for given in ((there,) * MOST, (device,), (client.fileno(),)):
            client.sendmsg([GET], [rights(*given)])
        os.close(there)
        os.close(device)
        received = b""
        while received.count(b'"state"') < 3:
            received += await asyncio.get_running_loop().sock_recv(client, 4096)
        assert os.read(here, 1) == b"", "somebody holds the other end"
        assert count_descriptors() == before + 3  # the pipe, and both ends of the connection
    os.close(here)
    await until_served(place)
    assert count_descriptors() == before


def test_h156_whoever_offers_room_for_descriptors_gets_them() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendmsg([GET], [rights(*(0,) * MOST)])
        _, ancillary, _, _ = ours.recvmsg(4096, socket.CMSG_SPACE(4 * MOST))
        got = array.array("i", ancillary[0][2])
    assert len(got) == MOST
    for descriptor in got:
        os.close(descriptor)


@pytest.mark.root
async def test_h156_forged_credentials_count_for_nothing(place: Place, deciding: Deciding) -> None:
    """The kernel lets root say that it is somebody else; who connected counts."""
    forged = struct.pack("iII", os.getpid(), NOBODY, NOBODY)
    with raw(place) as client:
        said = GET.replace(b"GET /v1/healthz", b"POST /v1/services/webui/stop")
        client.sendmsg([said], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, forged)])
        await asyncio.get_running_loop().sock_recv(client, 4096)
    assert deciding.audited == ["operator uid 0"]


def large_snapshot() -> StatusSnapshot:
    return replace(READY, services=(replace(READY.services[0], reason="x" * 1000),) * 4000)


async def test_h157_requests_without_end_from_who_never_reads(place: Place) -> None:
    long = (
        GET[:-2] + b"X: " + b"x" * 1000 + b"\r\n\r\n"
    )  # the kernel would keep 400 kB of short ones
    with raw(place) as client:
        with pytest.raises(ConnectionError):
            await asyncio.get_running_loop().sock_sendall(client, long * 10_000)
        assert await others_are_served(place)
    await until_served(place)


async def test_h157_requests_without_end_during_a_long_poll(place: Place) -> None:
    client = await place.client()
    client.writer.write(LINE % b"status?beyond=7&timeout=300" * 10_000)
    assert await read_until_closed(client) == b""


async def test_h157_a_reader_that_does_not_read_is_dropped(place: Place) -> None:
    await place.status.publish(large_snapshot())
    loop = asyncio.get_running_loop()
    received = 0
    with raw(place) as slow:
        await loop.sock_sendall(slow, LINE % b"status")
        assert await others_are_served(place)
        await until_served(place)
        while data := await loop.sock_recv(slow, 1 << 16):
            received += len(data)
    assert 0 < received < len(routes.encode(large_snapshot()))


async def test_h158_who_leaves_in_the_middle_leaves_no_trace(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    await place.status.publish(large_snapshot())
    for _ in range(50):
        client = await place.client()
        client.writer.write((LINE % b"status") * 3)
        await client.reader.read(10)
        client.writer.transport.abort()  # with bytes unread: the other end sees a reset
    await until_served(place)
    assert await others_are_served(place)
    assert not caplog.records


@pytest.fixture
def many_files() -> Iterator[None]:
    """Both ends of all connections are this process's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
async def test_h159_of_a_thousand_clients_most_are_told_to_wait(tmp_path: Path) -> None:
    async with listening(f"{tmp_path}/s.sock") as place:
        before = count_descriptors()
        clients = [await connect(place) for _ in range(1000)]
        loop = asyncio.get_running_loop()
        busy = [await loop.sock_recv(client, 4096) for client in clients[32:]]
        assert all(b"E_BUSY" in said for said in busy)
        for client in clients:
            client.close()
        await until_served(place)
        assert await others_are_served(place)
        await until_served(place)
        assert count_descriptors() == before


async def connect(place: Place) -> socket.socket:
    """With a full queue connect(2) says EAGAIN, which asyncio takes for a beginning."""
    client = socket.socket(socket.AF_UNIX)
    client.setblocking(False)
    while True:
        with suppress(BlockingIOError):
            client.connect(place.path)
            return client
        await asyncio.sleep(0)


async def test_h159_connecting_and_leaving_costs_no_memory(place: Place) -> None:
    async def come_and_go(times: int) -> int:
        for _ in range(times):
            (await connect(place)).close()
        while not await others_are_served(place):  # some still wait to be accepted
            pass
        place.writers.clear()
        await until_served(place)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    before = await come_and_go(200)
    after = await come_and_go(2000)
    tracemalloc.stop()
    assert after - before < 64 << 10


async def test_h160_who_subscribes_and_stalls_is_dropped(place: Place) -> None:
    for number in range(1000):
        await place.status.add("ready", f"{number}" + "x" * 1000)
    with raw(place) as client:
        await asyncio.get_running_loop().sock_sendall(client, LINE % b"events")
        assert await others_are_served(place)
        await until_served(place)  # it would be served as long as it stays
