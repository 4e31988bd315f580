"""`ReadinessPort`: single checks, and services that say themselves that they are ready."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from extsloader.adapters.readiness import ServiceReadiness
from extsloader.model.ids import ServiceName
from extsloader.model.manifest import ProbeKind, Readiness
from extsloader.ports.machine import ReadinessPort
from tests.fakes import bundles
from tests.fakes.machine import FakeMachine

PLAN = bundles.good()
CHECKED = (ProbeKind.EXEC, ProbeKind.TCP, ProbeKind.HTTP, ProbeKind.FILE)
NOT_CHECKED = (ProbeKind.NOTIFY, ProbeKind.DELAY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    port: ReadinessPort
    pid: int
    ended: int  # pid of one that is gone
    directory: str
    make: Callable[[ProbeKind, bool], Readiness]  # a check that will say yes or no
    notify: Callable[[], None]

    def listen(self) -> list[str]:
        told: list[str] = []
        self.port.listen(PLAN.service, self.directory, lambda: told.append("ready"))
        return told


@asynccontextmanager
async def fake(machine: FakeMachine) -> AsyncIterator[Subject]:
    pid, _ = await machine.ports().runtime.create(PLAN)

    def make(kind: ProbeKind, ready: bool) -> Readiness:
        machine.behave(PLAN.service).ready = ready
        return Readiness(kind=kind)

    yield Subject(
        port=machine.ports().readiness,
        pid=pid,
        ended=pid + 1,
        directory="/notify",
        make=make,
        notify=lambda: machine.notify(PLAN.service),
    )


@asynccontextmanager
async def real(directory: Path) -> AsyncIterator[Subject]:
    (directory / "there").touch()
    ended = await asyncio.create_subprocess_exec("true")
    await ended.wait()

    def notify() -> None:
        sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with sender, suppress(OSError):  # nobody listens
            sender.sendto(b"READY=1", str(directory / "n/notify"))

    async with serving() as good:
        with closed_port() as bad:
            yield Subject(
                port=ServiceReadiness(execute),
                pid=os.getpid(),
                ended=ended.pid,
                directory=str(directory / "n"),
                make=lambda kind, ready: Readiness(
                    kind=kind,
                    command=("true" if ready else "false",),
                    port=good if ready else bad,
                    path=str(directory / ("there" if ready else "none")),
                ),
                notify=notify,
            )


async def execute(_: ServiceName, command: tuple[str, ...], _deadline: float) -> tuple[int, str]:
    """Stands for a container; the runtime's tests have real ones."""
    return int(command != ("true",)), ""


@asynccontextmanager
async def serving() -> AsyncIterator[int]:
    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        await turns()


@contextmanager
def closed_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture(params=["fake", "real"])
async def subject(
    request: pytest.FixtureRequest, machine: FakeMachine, tmp_path: Path
) -> AsyncIterator[Subject]:
    async with fake(machine) if request.param == "fake" else real(tmp_path) as subject:
        yield subject
        subject.port.forget(PLAN.service)


@pytest.mark.parametrize("probe", CHECKED)
async def test_a_service_that_is_ready_needs_no_words(subject: Subject, probe: ProbeKind) -> None:
    readiness = subject.make(probe, True)
    assert await subject.port.check(PLAN, readiness, subject.pid, 2.0) == (True, "")


@pytest.mark.parametrize("probe", CHECKED)
async def test_a_service_that_is_not_ready_has_a_reason(subject: Subject, probe: ProbeKind) -> None:
    ready, reason = await subject.port.check(PLAN, subject.make(probe, False), subject.pid, 2.0)
    assert not ready
    assert reason


@pytest.mark.parametrize("probe", NOT_CHECKED)
async def test_what_no_check_can_find_out_is_never_ready(
    subject: Subject, probe: ProbeKind
) -> None:
    ready, reason = await subject.port.check(PLAN, subject.make(probe, True), subject.pid, 2.0)
    assert not ready
    assert reason


async def test_a_service_that_has_ended_is_not_ready(subject: Subject) -> None:
    readiness = subject.make(ProbeKind.FILE, True)
    ready, reason = await subject.port.check(PLAN, readiness, subject.ended, 2.0)
    assert not ready
    assert reason


async def test_a_service_that_says_ready_is_heard_once(subject: Subject) -> None:
    told = subject.listen()
    assert told == []
    for _ in range(2):
        subject.notify()
        await turns()
        assert told == ["ready"]


async def test_the_next_run_is_heard_anew(subject: Subject) -> None:
    first = subject.listen()
    subject.notify()
    await turns()
    second = subject.listen()
    subject.notify()
    await turns()
    assert first == second == ["ready"]


async def test_a_forgotten_service_is_not_heard_and_can_be_forgotten_again(
    subject: Subject,
) -> None:
    told = subject.listen()
    for _ in range(2):
        subject.port.forget(PLAN.service)
    subject.notify()
    await turns()
    assert told == []
