"""Checks of services that are really there: sockets, HTTP, files and commands."""

import asyncio
import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from extsloader.adapters import readiness as readiness_module
from extsloader.adapters.readiness import ServiceReadiness
from extsloader.model.errors import MachineError
from extsloader.model.ids import Digest, ServiceName
from extsloader.model.manifest import ProbeKind, Readiness, Resources
from extsloader.model.plan import ContainerPlan
from extsloader.model.reasons import Code

ZETA = ServiceName("zeta")
PLAN = ContainerPlan(
    service=ZETA,
    digest=Digest("0" * 64),
    bundle_dir="/b",
    notify_dir="/n",
    spec="{}",
    mounts=(),
    resources=Resources(),
    readiness=Readiness(),
)


async def execute(
    service: ServiceName, command: tuple[str, ...], deadline: float
) -> tuple[int, str]:
    """Stands for a container: the command is the answer."""
    assert (service, deadline) == (ZETA, 2.0)
    if command[0] == "hang":
        raise MachineError(Code.RUNTIME, "run hang in container zeta", "no answer within 2 s")
    return int(command[0]), command[1]


async def check(readiness: Readiness, pid: int = 0, deadline: float = 2.0) -> tuple[bool, str]:
    async with asyncio.timeout(5):
        return await ServiceReadiness(execute).check(PLAN, readiness, pid, deadline)


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[int]:
    """A server on the loopback that says this and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        await turns()


@contextmanager
def silent() -> Iterator[int]:
    """A port whose connections the kernel completes, and nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def http(port: int) -> Readiness:
    return Readiness(kind=ProbeKind.HTTP, port=port, path="/healthz")


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class TestNotify:
    @pytest.fixture
    async def told(self, tmp_path: Path) -> AsyncIterator[tuple[socket.socket, list[int]]]:
        told: list[int] = []
        readiness = ServiceReadiness(execute)
        readiness.listen(ZETA, f"{tmp_path}/n", lambda: told.append(1))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(f"{tmp_path}/n/notify")
            yield sender, told
        readiness.forget(ZETA)
        readiness.forget(ZETA)
        assert list((tmp_path / "n").iterdir()) == []

    @pytest.mark.parametrize("message", [b"READY=1", b"STATUS=up\nREADY=1\nMAINPID=5\n"])
    async def test_ready_is_told_once(
        self, told: tuple[socket.socket, list[int]], message: bytes
    ) -> None:
        sender, ready = told
        sender.send(message)
        sender.send(message)
        await turns()
        assert ready == [1]

    @pytest.mark.parametrize("message", [b"", b"READY=0", b"XREADY=1", b"READY=1x", b"\xff" * 9000])
    async def test_anything_else_is_not_ready(
        self, told: tuple[socket.socket, list[int]], message: bytes
    ) -> None:
        sender, ready = told
        sender.send(message)
        await turns()
        assert ready == []

    async def test_a_full_disk_does_not_keep_the_news_back(
        self, told: tuple[socket.socket, list[int]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(_path: Path) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(Path, "touch", refuse)
        sender, ready = told
        sender.send(b"READY=1")
        await turns()
        assert ready == [1]

    async def test_many_messages_block_neither_the_service_nor_the_loop(
        self, told: tuple[socket.socket, list[int]]
    ) -> None:
        sender, ready = told
        sender.setblocking(False)
        for _ in range(50):
            for _ in range(5):
                sender.send(b"WATCHDOG=1")
            await turns()
        sender.send(b"READY=1")
        await turns()
        assert ready == [1]

    async def test_descriptors_that_come_along_are_not_taken(
        self, told: tuple[socket.socket, list[int]]
    ) -> None:
        sender, ready = told
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
            before = open_descriptors()
            socket.send_fds(sender, [b"READY=1"], [one.fileno()])
            await turns()
            assert ready == [1]
            assert open_descriptors() == before

    async def test_any_user_may_send(
        self, told: tuple[socket.socket, list[int]], tmp_path: Path
    ) -> None:
        del told
        assert (tmp_path / "n/notify").stat().st_mode & 0o777 == 0o666

    async def test_what_one_agent_heard_the_next_one_knows(
        self, told: tuple[socket.socket, list[int]], tmp_path: Path
    ) -> None:
        sender, _ = told
        directory = f"{tmp_path}/n"
        following = ServiceReadiness(execute)
        assert not following.listen(ZETA, directory, lambda: None, again=True)
        sender.connect(f"{directory}/notify")
        sender.send(b"READY=1")
        await turns()
        last = ServiceReadiness(execute)
        assert last.listen(ZETA, directory, lambda: None, again=True)
        assert not last.listen(ZETA, directory, lambda: None)  # a new run has said nothing
        for one in (following, last):
            one.forget(ZETA)

    async def test_a_deep_directory_and_a_stale_socket_are_no_hindrance(
        self, tmp_path: Path
    ) -> None:
        deep = tmp_path / ("d" * 100) / ("e" * 100)
        first, second = ServiceReadiness(execute), ServiceReadiness(execute)
        told: list[str] = []
        first.listen(ZETA, f"{deep}", lambda: told.append("first"))
        second.listen(ZETA, f"{deep}", lambda: told.append("second"))
        descriptor = os.open(deep, os.O_PATH)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"READY=1", f"/proc/self/fd/{descriptor}/notify")
        os.close(descriptor)
        await turns()
        assert told == ["second"]
        first.forget(ZETA)
        second.forget(ZETA)

    async def test_an_impossible_directory_is_a_machine_error(self) -> None:
        with pytest.raises(MachineError, match="cannot listen for zeta at /proc/x/notify"):
            ServiceReadiness(execute).listen(ZETA, "/proc/x", lambda: None)


async def turns() -> None:
    """Let the loop look at its descriptors a few times."""
    for _ in range(5):
        await asyncio.sleep(0)


class TestTcp:
    async def test_a_listening_port_is_ready(self) -> None:
        with silent() as port:
            assert await check(Readiness(kind=ProbeKind.TCP, port=port)) == (True, "")

    async def test_a_closed_port_is_not(self) -> None:
        with silent() as port:
            pass
        ready, detail = await check(Readiness(kind=ProbeKind.TCP, port=port))
        assert not ready
        assert "onnect" in detail


class TestHttp:
    @pytest.mark.parametrize(
        ("answer", "ready", "detail"),
        [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True, ""),
            (b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", True, ""),
            (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", True, ""),
            (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", False, "HTTP status 503"),
            (b"", False, "no HTTP answer"),
            (b"SSH-2.0-OpenSSH\r\n", False, "no HTTP answer"),
            (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, False, "no HTTP answer"),
        ],
    )
    async def test_the_status_decides(self, answer: bytes, ready: bool, detail: str) -> None:
        async with answering(answer) as port:
            result, reason = await check(http(port))
        assert result == ready
        assert reason.startswith(detail)

    async def test_a_silent_server_is_given_up(self) -> None:
        with silent() as port:
            assert await check(http(port), deadline=0.1) == (False, "no answer within 0.1 s")


class TestFile:
    async def test_a_file_in_the_processs_root_is_found(self, tmp_path: Path) -> None:
        there = tmp_path / "there"
        missing = Readiness(kind=ProbeKind.FILE, path=f"{there}")
        assert await check(missing, os.getpid()) == (False, f"there is no {there}")
        there.touch()
        assert await check(missing, os.getpid()) == (True, "")

    async def test_a_process_that_has_ended_has_no_files(self) -> None:
        ready, detail = await check(Readiness(kind=ProbeKind.FILE, path="/"), 2**22 - 1)
        assert (ready, detail) == (False, "no such file or directory")


async def test_a_name_that_is_none_is_told_in_words() -> None:
    ready, detail = await check(Readiness(kind=ProbeKind.TCP, host="a..b", port=1))
    assert (ready, detail) == (False, "cannot resolve a..b: it is no name")


class TestHanging:
    """A file system of a service, or a name server, that never answers (F61)."""

    @pytest.fixture
    def hang(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        answered = threading.Event()
        exists = readiness_module._exists

        def look(pid: int, path: str) -> bool:
            if path == "/hanging":
                answered.wait()
            return exists(pid, path)

        monkeypatch.setattr(readiness_module, "_exists", look)
        yield
        answered.set()

    @pytest.mark.usefixtures("hang")
    async def test_harms_only_the_service_that_has_it(self) -> None:
        checks = ServiceReadiness(execute)
        hanging = Readiness(kind=ProbeKind.FILE, path="/hanging")
        before = threading.active_count()
        plans = [replace(PLAN, service=ServiceName(f"bad-{n}")) for n in range(64)]
        for said in ("no answer within 0.01 s", "the check before this one still hangs"):
            for plan in plans:
                assert await checks.check(plan, hanging, os.getpid(), 0.01) == (False, said)
        assert threading.active_count() <= before + len(plans)
        good = Readiness(kind=ProbeKind.FILE, path="/proc")
        assert await checks.check(PLAN, good, os.getpid(), 2.0) == (True, "")

    async def test_without_a_thread_there_is_no_answer(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(_thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)
        asked = check(Readiness(kind=ProbeKind.FILE, path="/proc"), os.getpid())
        assert await asked == (False, "can't start new thread")

    def test_does_not_keep_the_agent_from_ending(self) -> None:
        """asyncio's own threads would: its loop waits for them, and so does the interpreter."""
        code = """if True:
            import asyncio, threading
            from extsloader.adapters.readiness import Looks
            async def main():
                async with asyncio.timeout(0.01):
                    await Looks().run("zeta", threading.Event().wait)
            try:
                asyncio.run(main())
            except TimeoutError:
                pass"""
        assert subprocess.run([sys.executable, "-c", code], timeout=20, check=False).returncode == 0


@pytest.mark.parametrize(
    ("command", "result"),
    [
        (("0", "ignored"), (True, "")),
        (("3", ""), (False, "exit code 3")),
        (("1", "no such table"), (False, "exit code 1: no such table")),
        (("hang",), (False, "cannot run hang in container zeta: no answer within 2 s")),
    ],
)
async def test_a_commands_exit_code_decides(
    command: tuple[str, ...], result: tuple[bool, str]
) -> None:
    assert await check(Readiness(kind=ProbeKind.EXEC, command=command)) == result


@pytest.mark.parametrize(
    "said",
    [
        'runc: exec failed: exec: "nope": executable file not found in $PATH',
        "exec: /nope: no such file or directory",
        "crun: executable file `nope` not found in $PATH",
    ],
)
async def test_a_command_that_is_not_there_is_no_reason_to_go_on_asking(said: str) -> None:
    with pytest.raises(MachineError) as caught:
        await check(Readiness(kind=ProbeKind.EXEC, command=("255", said)))
    assert caught.value.problem.code is Code.READINESS
