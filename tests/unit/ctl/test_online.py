"""The verbs against a real socket, in this process: the daemon's side runs on the loop."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from extsloader.adapters.status_socket import Bounds, StatusSocket
from extsloader.ctl.main import main
from extsloader.model.status import AgentState
from tests.fakes.status import DEGRADED, READY, FakeControl, FakeStatus


@dataclass
class Daemon:
    status: FakeStatus
    path: str


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    path = str(tmp_path / "s.sock")
    status = FakeStatus()
    server = await StatusSocket(status, FakeControl(), path).start()
    yield Daemon(status, path)
    await server.close()


@pytest.fixture
def run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], tuple[int, str, str]]:
    """Runs one command line in this thread; the exit code, standard output and error."""
    monkeypatch.setenv("EXTSLOADER_SOCKET", str(tmp_path / "s.sock"))

    def run_line(line: str) -> tuple[int, str, str]:
        code = main(line.split())
        said = capsys.readouterr()
        return code, said.out, said.err

    return run_line


Run = Callable[[str], tuple[int, str, str]]


@pytest.mark.parametrize(
    ("line", "code", "out"),
    [
        ("status", 1, "degraded: telemetry is backing off"),
        ("services", 0, "telemetry    backing-off"),
        ("services --names", 0, "collector\ntelemetry\nwebui\n"),
        ("explain webui", 0, "next step: look at the log"),
        ("candidates", 0, "/dev/sdc1   40M  refused"),
        ("events", 0, "service telemetry: ready -> backing-off"),
        ("timeline", 0, "ready after 2.000 s"),
        ("top --interval 0.01", 0, "telemetry  backing-off"),
        ("wait --for degraded", 0, "degraded: "),
        ("wait --for settled", 0, "degraded: "),
        ("wait --timeout 0.05", 1, "degraded: "),
    ],
)
async def test_answers(daemon: Daemon, run: Run, line: str, code: int, out: str) -> None:
    await daemon.status.publish(DEGRADED)
    await daemon.status.add("ready", "backing-off")
    got, said, err = await asyncio.to_thread(run, line)
    assert (got, err) == (code, "")
    assert out in said


@pytest.mark.parametrize(
    "line",
    [
        "status",
        "services",
        "explain webui",
        "candidates",
        "events",
        "timeline",
        "wait --for degraded",
    ],
)
async def test_every_answer_has_a_form_for_programs(daemon: Daemon, run: Run, line: str) -> None:
    await daemon.status.publish(DEGRADED)
    await daemon.status.add("ready", "backing-off")
    _, out, _ = await asyncio.to_thread(run, f"{line} --json")
    assert json.loads(out)


@pytest.mark.usefixtures("daemon")
async def test_a_ready_device_is_a_yes(run: Run) -> None:
    assert (await asyncio.to_thread(run, "status"))[0] == 0


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize(("name", "begin"), [("t.svg", "<svg "), ("t.html", "<!doctype html>")])
async def test_a_timeline_is_drawn(run: Run, tmp_path: Path, name: str, begin: str) -> None:
    path = tmp_path / name
    assert await asyncio.to_thread(run, f"timeline -o {path}") == (0, "", "")
    assert path.read_text().startswith(begin)
    code, _, err = await asyncio.to_thread(run, f"timeline -o {tmp_path}/absent/{name}")
    assert (code, "No such file or directory" in err) == (1, True)


async def test_nothing_there_is_said_in_words(daemon: Daemon, run: Run) -> None:
    await daemon.status.publish(replace(READY, services=(), candidates=()))
    assert (await asyncio.to_thread(run, "services"))[1].startswith("there are no services")
    assert (await asyncio.to_thread(run, "candidates"))[1].startswith("there are no candidates")


@pytest.mark.parametrize("name", ["nothing", "a/b", "?x=1", "é", "\x1b[2J"])
@pytest.mark.usefixtures("daemon")
async def test_an_unknown_service_is_a_no(run: Run, name: str) -> None:
    code, out, err = await asyncio.to_thread(run, f"explain {name}")
    assert (code, out) == (1, "")
    assert "there is no" in err
    assert "\x1b" not in err


async def test_waiting_ends_with_the_change_it_waits_for(daemon: Daemon, run: Run) -> None:
    await daemon.status.publish(replace(READY, state=AgentState.ACTIVATING))
    waiting = asyncio.gather(asyncio.to_thread(run, "wait --timeout 30"))
    await daemon.status.wait_for_waiters(1)
    await daemon.status.publish(replace(READY, generation=8, state=AgentState.VERIFYING))
    await daemon.status.publish(replace(READY, generation=9))
    ((code, out, _),) = await waiting
    assert (code, out) == (0, "ready\n")


async def test_waiting_for_what_cannot_come_ends_at_once(daemon: Daemon, run: Run) -> None:
    await daemon.status.publish(replace(READY, state=AgentState.DISABLED, reason="switched off"))
    code, out, _ = await asyncio.to_thread(run, "wait")
    assert (code, out) == (1, "disabled: switched off\n")


async def test_waiting_includes_the_daemons_start(tmp_path: Path, run: Run) -> None:
    waiting = asyncio.gather(asyncio.to_thread(run, "wait --timeout 30"))
    server = await StatusSocket(FakeStatus(), FakeControl(), str(tmp_path / "s.sock")).start()
    ((code, out, _),) = await waiting
    assert (code, out) == (0, "ready\n")
    await server.close()


async def test_waiting_survives_the_daemons_restart(tmp_path: Path, run: Run) -> None:
    path = str(tmp_path / "s.sock")
    busy = FakeStatus(now=replace(READY, generation=500, state=AgentState.ACTIVATING))
    server = await StatusSocket(busy, FakeControl(), path).start()
    waiting = asyncio.gather(asyncio.to_thread(run, "wait --timeout 30"))
    await busy.wait_for_waiters(1)
    await server.close()
    server = await StatusSocket(FakeStatus(), FakeControl(), path).start()
    ((code, out, _),) = await waiting
    assert (code, out) == (0, "ready\n")
    await server.close()


async def test_following_events_until_the_daemon_ends(tmp_path: Path, run: Run) -> None:
    status = FakeStatus()
    server = await StatusSocket(status, FakeControl(), str(tmp_path / "s.sock")).start()
    await status.add("ready", "removing")
    following = asyncio.gather(asyncio.to_thread(run, "events --follow"))
    await status.wait_for_reader_at(1)
    await status.add("removing", "backing-off")
    await status.wait_for_reader_at(2)
    await server.close()
    ((code, out, err),) = await following
    assert out.count("\n") == 2
    assert (code, err) == (1, "extsloaderctl: the daemon ended the stream\n")


async def test_a_busy_daemon_is_understood(tmp_path: Path, run: Run) -> None:
    path = str(tmp_path / "s.sock")
    server = await StatusSocket(FakeStatus(), FakeControl(), path, bounds=Bounds(clients=0)).start()
    code, _, err = await asyncio.to_thread(run, "status")
    assert code == 1
    assert "0 clients are connected already [E_BUSY]" in err
    assert "hint: close one" in err
    await server.close()


# Nobody answers: 3.


def test_no_daemon(run: Run, tmp_path: Path) -> None:
    code, out, err = run("status")
    assert (code, out) == (3, "")
    assert err == (
        f"extsloaderctl: no daemon at {tmp_path}/s.sock: No such file or directory\n"
        "hint: is extsloaderd running? systemctl status extsloaderd\n"
    )


def test_a_dead_daemons_socket(run: Run, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s.sock"))
    code, _, err = run("status")
    assert code == 3
    assert "Connection refused" in err


def test_waiting_for_a_daemon_that_never_comes(run: Run) -> None:
    code, _, err = run("wait --timeout 0.1")
    assert code == 3
    assert "is extsloaderd running?" in err


def test_a_socket_that_is_none(run: Run, tmp_path: Path) -> None:
    (tmp_path / "s.sock").write_text("")
    code, _, err = run("status")
    assert code == 3
    assert "Connection refused" in err


@pytest.mark.skipif(os.geteuid() != 0, reason="gives rights away and takes them back")
def test_a_user_who_may_not_ask(run: Run, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s.sock"))
        listener.listen()
        (tmp_path / "s.sock").chmod(0o600)
        os.seteuid(65534)
        try:
            code, _, err = run("status")
        finally:
            os.seteuid(0)
    assert code == 3
    assert "Permission denied" in err


async def test_something_else_that_answers(tmp_path: Path, run: Run) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    async with await asyncio.start_unix_server(talk, tmp_path / "s.sock"):
        code, _, err = await asyncio.to_thread(run, "status")
    assert code == 3
    assert "cannot read the answer" in err


async def test_an_answer_that_is_no_status(tmp_path: Path, run: Run) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")
        writer.close()

    async with await asyncio.start_unix_server(talk, tmp_path / "s.sock"):
        code, _, err = await asyncio.to_thread(run, "status")
    assert code == 3
    assert "of the same version?" in err
