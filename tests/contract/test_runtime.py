"""`RuntimePort`: containers from their creation to their end, and over the agent's own end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

import pytest

from extsloader.model.errors import MachineError
from extsloader.model.events import Cause, CauseKind
from extsloader.model.ids import Digest, ServiceName
from extsloader.model.plan import ContainerPlan
from extsloader.model.reasons import Code, Problem
from extsloader.ports.machine import RuntimePort
from tests.fakes import bundles
from tests.fakes.machine import FakeMachine, FakeRuntime
from tests.fakes.real_containerd import Containerd, containerd
from tests.integration.containers import DEV, PROC, Bench

ZETA = ServiceName("zeta")
OTHER = Digest("f" * 64)
NONE = Digest("")
EXIT_7 = Cause(CauseKind.CODE, 7)
TERM, KILL = Cause(CauseKind.SIGNAL, 15), Cause(CauseKind.SIGNAL, 9)

Ends = asyncio.Queue[tuple[str, int, Cause]]


class Story(Enum):
    """What a service does; for the real one, the script and whether it has its own processes."""

    EXITS = "exit 7", True
    SLEEPS = "echo > /said; exec sleep 1000", False
    IGNORES = "echo > /said; exec sleep 1000", True  # as process 1 does (pid_namespaces(7))
    IS_BROKEN = "there is no shell", True


@dataclass(kw_only=True)
class Subject:
    port: RuntimePort
    new_agent: Callable[[], RuntimePort]  # knows only what the old one left on the machine
    plan: Callable[[Story], ContainerPlan]
    until_up: Callable[[], Awaitable[object]]
    ends: Ends

    def restart_agent(self) -> None:
        self.port.close()
        self.port = self.new_agent()

    async def run(self, story: Story) -> tuple[ContainerPlan, int]:
        plan = self.plan(story)
        pid, _ = await self.port.create(plan)
        await self.port.start(ZETA)
        await self.until_up()
        return plan, pid

    async def next_end(self) -> tuple[str, int, Cause]:
        async with asyncio.timeout(10):
            return await self.ends.get()

    async def is_quiet(self) -> bool:
        for _ in range(3):
            await asyncio.sleep(0)
        return self.ends.empty()


@asynccontextmanager
async def fake(machine: FakeMachine) -> AsyncIterator[Subject]:
    ends = Ends()

    def new_agent() -> RuntimePort:
        runtime = FakeRuntime(machine)
        runtime.start_watching(lambda *end: ends.put_nowait(end))
        return runtime

    def plan(story: Story) -> ContainerPlan:
        behaviour = machine.behave(ZETA)
        behaviour.exits = EXIT_7 if story is Story.EXITS else None
        behaviour.deaf = story is Story.IGNORES
        if story is Story.IS_BROKEN:
            behaviour.create_fails = Problem(Code.RUNTIME, "no such file")
        return bundles.good()

    async def until_up() -> None:
        pass

    yield Subject(port=new_agent(), new_agent=new_agent, plan=plan, until_up=until_up, ends=ends)


@asynccontextmanager
async def real(directory: Path, socket: Path | None) -> AsyncIterator[Subject]:
    bench = Bench(directory, socket)

    def plan(story: Story) -> ContainerPlan:
        script, alone = story.value
        namespaces = [{"type": "mount"}, *([{"type": "pid"}] if alone else [])]
        found = bench.plan(
            bench.add_bundle(
                ZETA,
                script,
                linux={"namespaces": namespaces},
                mounts=[PROC, DEV, bench.bind_said()],
            )
        )
        broken = found.spec.replace("/bin/sh", "/bin/nope")
        return replace(found, spec=broken) if story is Story.IS_BROKEN else found

    yield Subject(
        port=bench.runtime,
        new_agent=bench.new_agent,
        plan=plan,
        until_up=bench.said,
        ends=bench.ends,
    )
    await bench.sweep()


@pytest.fixture(scope="module")
def daemon() -> Iterator[Containerd]:
    with containerd() as daemon:
        yield daemon


@pytest.fixture(
    params=[
        "fake",
        pytest.param("conmon", marks=pytest.mark.root),
        pytest.param("containerd", marks=pytest.mark.root),
    ]
)
async def subject(
    request: pytest.FixtureRequest, machine: FakeMachine, tmp_path: Path
) -> AsyncIterator[Subject]:
    if request.param == "fake":
        async with fake(machine) as subject:
            yield subject
        return
    with_daemon = request.param == "containerd"
    socket = request.getfixturevalue("daemon").socket if with_daemon else None
    async with real(tmp_path, socket) as subject:
        yield subject


async def test_created_is_not_started_and_the_end_is_told_once(subject: Subject) -> None:
    pid, running = await subject.port.create(subject.plan(Story.EXITS))
    assert not running
    assert await subject.is_quiet()
    await subject.port.start(ZETA)
    assert await subject.next_end() == (ZETA, pid, EXIT_7)
    await subject.port.delete(ZETA)
    assert await subject.is_quiet()


async def test_a_polite_signal_ends_a_service_that_listens(subject: Subject) -> None:
    _, pid = await subject.run(Story.SLEEPS)
    subject.port.signal(ZETA, "SIGTERM")
    assert await subject.next_end() == (ZETA, pid, TERM)


async def test_a_service_that_ignores_it_has_to_be_killed(subject: Subject) -> None:
    _, pid = await subject.run(Story.IGNORES)
    subject.port.signal(ZETA, "SIGTERM")
    assert await subject.is_quiet()
    subject.port.signal(ZETA, "SIGKILL")
    assert await subject.next_end() == (ZETA, pid, KILL)


async def test_a_container_that_dies_before_its_start_has_an_end_too(subject: Subject) -> None:
    pid, _ = await subject.port.create(subject.plan(Story.SLEEPS))
    subject.port.signal(ZETA, "SIGKILL")
    assert await subject.next_end() == (ZETA, pid, KILL)
    with pytest.raises(MachineError) as dead:
        await subject.port.start(ZETA)
    assert dead.value.problem.code is Code.RUNTIME


async def test_a_signal_to_one_that_is_gone_is_no_error(subject: Subject) -> None:
    subject.port.signal(ZETA, "SIGTERM")
    await subject.port.create(subject.plan(Story.EXITS))
    await subject.port.start(ZETA)
    await subject.next_end()
    subject.port.signal(ZETA, "SIGTERM")
    assert await subject.is_quiet()


async def test_only_what_is_created_can_be_started(subject: Subject) -> None:
    with pytest.raises(MachineError) as missing:
        await subject.port.start(ZETA)
    await subject.run(Story.SLEEPS)
    with pytest.raises(MachineError) as running:
        await subject.port.start(ZETA)
    assert missing.value.problem.code is running.value.problem.code is Code.RUNTIME


async def test_what_cannot_be_created_leaves_nothing(subject: Subject) -> None:
    with pytest.raises(MachineError) as failed:
        await subject.port.create(subject.plan(Story.IS_BROKEN))
    assert failed.value.problem.code is Code.RUNTIME
    assert await subject.port.leftovers(NONE) == ()
    assert await subject.is_quiet()


async def test_one_that_has_ended_is_replaced(subject: Subject) -> None:
    plan = subject.plan(Story.EXITS)
    old, _ = await subject.port.create(plan)
    await subject.port.start(ZETA)
    await subject.next_end()
    pid, running = await subject.port.create(plan)
    assert pid != old
    assert not running
    await subject.port.start(ZETA)
    assert await subject.next_end() == (ZETA, pid, EXIT_7)


async def test_the_next_agent_adopts_one_that_runs(subject: Subject) -> None:
    plan, pid = await subject.run(Story.SLEEPS)
    subject.restart_agent()
    assert await subject.port.create(plan) == (pid, True)
    subject.port.signal(ZETA, "SIGKILL")
    assert await subject.next_end() == (ZETA, pid, KILL)


async def test_the_next_agent_finds_how_one_ended_that_nobody_watched(subject: Subject) -> None:
    plan, _ = await subject.run(Story.SLEEPS)
    subject.restart_agent()
    assert await subject.port.find_end(plan) is None, "it runs"
    await subject.port.create(plan)
    subject.port.signal(ZETA, "SIGKILL")
    await subject.next_end()
    subject.restart_agent()
    assert await subject.port.find_end(replace(plan, digest=OTHER)) is None
    assert await subject.port.find_end(plan) == KILL
    await subject.port.delete(ZETA)
    assert await subject.port.find_end(plan) is None


async def test_what_was_created_and_never_started_has_no_end(subject: Subject) -> None:
    plan = subject.plan(Story.SLEEPS)
    await subject.port.create(plan)
    subject.restart_agent()
    assert await subject.port.find_end(plan) is None


async def test_the_next_agent_creates_anew_what_was_not_started(subject: Subject) -> None:
    plan = subject.plan(Story.SLEEPS)
    old, _ = await subject.port.create(plan)
    subject.restart_agent()
    pid, running = await subject.port.create(plan)
    assert pid != old
    assert not running
    assert await subject.is_quiet()


async def test_one_of_another_image_is_replaced_and_its_end_not_told(subject: Subject) -> None:
    plan, old = await subject.run(Story.SLEEPS)
    pid, running = await subject.port.create(replace(plan, digest=OTHER))
    assert pid != old
    assert not running
    assert await subject.is_quiet()


async def test_deleting_none_is_no_error_and_tells_no_end(subject: Subject) -> None:
    await subject.port.delete(ZETA)
    await subject.run(Story.SLEEPS)
    for _ in range(2):
        await subject.port.delete(ZETA)
        assert await subject.port.leftovers(NONE) == ()
    assert await subject.is_quiet()


async def test_leftovers_are_those_of_other_images(subject: Subject) -> None:
    plan, _ = await subject.run(Story.SLEEPS)
    subject.restart_agent()
    assert await subject.port.leftovers(plan.digest) == ()
    assert await subject.port.leftovers(OTHER) == (ZETA,)
    assert await subject.port.leftovers(NONE) == (ZETA,)
