"""Services of a real containerd: what the contract of the port does not say."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from extsloader.adapters.containerd import ContainerdRuntime
from extsloader.adapters.containerd.client import Client
from extsloader.model.errors import MachineError
from extsloader.model.events import Cause, CauseKind
from extsloader.model.ids import Digest, ServiceName
from extsloader.model.plan import ContainerPlan
from tests.fakes.memlogd import Memlogd
from tests.fakes.real_containerd import Containerd, containerd
from tests.integration.containers import CGROUP, DEV, PROC, Bench

pytestmark = pytest.mark.root

ZETA = ServiceName("zeta")
SLEEPS = "exec sleep 1000"
KILL = Cause(CauseKind.SIGNAL, 9)


@pytest.fixture(scope="module")
def daemon() -> Iterator[Containerd]:
    with containerd() as daemon:
        yield daemon


@pytest.fixture
async def bench(tmp_path: Path, daemon: Containerd) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path, daemon.socket)
    yield bench
    await bench.sweep()


async def run(bench: Bench, script: str = SLEEPS) -> tuple[ContainerPlan, int]:
    mounts = [PROC, DEV, bench.bind_said()]
    plan = bench.plan(bench.add_bundle(ZETA, script, mounts=mounts))
    pid, _ = await bench.runtime.create(plan)
    await bench.runtime.start(ZETA)
    return plan, pid


def groups_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text()


def streams_of(bench: Bench) -> list[Path]:
    return list(Path(bench.settings.paths.run).glob("streams.*"))


async def test_operators_see_it(bench: Bench, daemon: Containerd) -> None:
    plan, _ = await run(bench)
    assert daemon.containers() == [ZETA]
    assert daemon.tasks() == {ZETA: "RUNNING"}
    assert plan.digest in daemon.ctr("containers", "info", ZETA)


async def test_it_runs_in_the_group_that_has_its_limits(bench: Bench) -> None:
    _, pid = await run(bench)
    assert f"/{CGROUP}/{ZETA}\n" in groups_of(pid)


@pytest.mark.parametrize("paused", [False, True])
async def test_the_next_agent_adopts_it_also_paused(
    bench: Bench, daemon: Containerd, paused: bool
) -> None:
    plan, pid = await run(bench)
    if paused:
        daemon.ctr("tasks", "pause", ZETA)
    bench.runtime.close()
    assert await bench.new_agent().create(plan) == (pid, True)
    assert daemon.tasks() == {ZETA: "PAUSED" if paused else "RUNNING"}
    assert await bench.runtime.find_end(plan) is None


async def test_what_is_paused_can_be_deleted(bench: Bench, daemon: Containerd) -> None:
    await run(bench)
    daemon.ctr("tasks", "pause", ZETA)
    await bench.runtime.delete(ZETA)
    assert daemon.containers() == []


async def test_an_end_while_no_agent_is_there_is_not_lost(bench: Bench, daemon: Containerd) -> None:
    plan, _ = await run(bench)
    bench.runtime.close()
    daemon.ctr("tasks", "kill", "--signal", "SIGKILL", ZETA)
    await asyncio.to_thread(lambda: _until_stopped(daemon))
    assert await bench.new_agent().find_end(plan) == KILL


def _until_stopped(daemon: Containerd) -> None:
    for _ in range(500):  # each asks containerd: no idle turn
        if daemon.tasks() == {ZETA: "STOPPED"}:
            return
    raise AssertionError(daemon.tasks())


async def test_containerd_may_end_and_come_back(bench: Bench, daemon: Containerd) -> None:
    plan, pid = await run(bench)
    daemon.kill()
    with pytest.raises(MachineError, match="containerd: connection refused"):
        await bench.runtime.leftovers(Digest(""))
    daemon.start()
    assert await bench.runtime.create(plan) == (pid, True)
    os.kill(pid, 9)
    assert await bench.next_end() == (ZETA, pid, KILL)


async def test_an_end_that_containerd_cannot_tell_is_told(bench: Bench, daemon: Containerd) -> None:
    plan, pid = await run(bench)
    daemon.kill()
    try:
        os.kill(pid, 9)
        assert await bench.next_end() == (ZETA, pid, Cause(CauseKind.LOST))
    finally:
        daemon.start()
    assert await bench.runtime.find_end(plan) is None, "it was told"


async def test_one_that_is_not_ours_is_left_alone(bench: Bench, daemon: Containerd) -> None:
    plan = bench.plan(bench.add_bundle(ZETA, SLEEPS))
    client = Client(f"{daemon.socket}", 10)
    await client.add_container(ZETA, {"made.by": "another"}, plan.spec)
    try:
        for order in (bench.runtime.create(plan), bench.runtime.delete(ZETA)):
            with pytest.raises(MachineError, match="another program's container has it"):
                await order
        assert await bench.runtime.leftovers(Digest("")) == ()
        assert daemon.containers() == [ZETA]
    finally:
        await client.remove_container(ZETA)


async def test_out_of_memory_is_told(bench: Bench) -> None:
    _, pid = await run(bench, "tail /dev/zero")
    assert await bench.next_end() == (ZETA, pid, Cause(CauseKind.OOM))


async def test_lines_reach_memlogd_without_the_agent(bench: Bench, tmp_path: Path) -> None:
    with Memlogd.listening(Path(bench.settings.paths.memlogd)) as memlogd:
        await run(bench, "echo out; echo err >&2; read line < /said; echo $line")
        bench.runtime.close()
        (tmp_path / "said").write_text("later\n")
        with memlogd.take("zeta.out") as output:
            assert (output.readline(), output.readline()) == ("out\n", "later\n")
        await bench.new_agent().delete(ZETA)
        assert memlogd.read("zeta") == "err\n"
    assert streams_of(bench) == []


async def test_a_long_specification_fits(bench: Bench) -> None:
    """Longer than what may be on its way before the peer says more (RFC 9113, 6.9)."""
    plan = bench.plan(bench.add_bundle(ZETA, SLEEPS))
    pid, _ = await bench.runtime.create(replace(plan, spec=plan.spec + " " * 300_000))
    await bench.runtime.start(ZETA)
    assert await bench.runtime.create(plan) == (pid, True)


async def test_a_command_in_the_container_tells_its_exit_code(bench: Bench) -> None:
    await run(bench)
    assert isinstance(bench.runtime, ContainerdRuntime)
    assert await bench.runtime.execute(ZETA, ("/bin/sh", "-c", "exit 3"), 10) == (3, "")
    code, reason = await bench.runtime.execute(ZETA, ("/bin/nope",), 10)
    assert (code, "no such file" in reason) == (255, True), reason


async def test_a_command_that_takes_too_long_is_killed(bench: Bench, daemon: Containerd) -> None:
    await run(bench)
    assert isinstance(bench.runtime, ContainerdRuntime)
    with pytest.raises(MachineError, match=r"no answer within 0\.5 s"):
        await bench.runtime.execute(ZETA, ("/bin/sleep", "1000"), 0.5)
    assert len(daemon.ctr("tasks", "ps", ZETA).splitlines()) == 2, "a heading and the service"
