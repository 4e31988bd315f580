"""Services run for real: runc, conmon, and what is left when something is killed."""

import asyncio
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from extsloader.adapters.oci import OciRuntime
from extsloader.adapters.oci.processes import identify
from extsloader.adapters.readiness import ServiceReadiness
from extsloader.model.errors import MachineError
from extsloader.model.events import Cause, CauseKind
from extsloader.model.ids import Digest, ServiceName
from extsloader.model.manifest import ProbeKind, Readiness, Resources
from extsloader.model.plan import ContainerPlan
from extsloader.model.reasons import Code
from extsloader.model.settings import Logs
from extsloader.wiring.ports import open_logs
from tests.fakes.memlogd import Memlogd
from tests.integration.containers import (
    CGROUP,
    DEV,
    HIERARCHIES,
    PROC,
    ZERO,
    Bench,
    gone,
)

pytestmark = pytest.mark.root

AGENT_THAT_DIES = """
import asyncio, os, pickle, signal, sys
from extsloader.adapters.oci import OciRuntime
from extsloader.wiring.ports import open_logs

async def main():
    settings, machine, plan = pickle.load(sys.stdin.buffer)
    runtime = OciRuntime(settings, machine, open_logs(settings))
    await runtime.create(plan)
    await runtime.start(plan.service)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    await bench.sweep()


@pytest.fixture
def memlogd(bench: Bench) -> Iterator[Memlogd]:
    """It is there before the service is."""
    with Memlogd.listening(Path(bench.settings.paths.memlogd)) as memlogd:
        yield memlogd


@pytest.mark.parametrize("code", [0, 7])
async def test_a_service_tells_its_exit_code(bench: Bench, code: int) -> None:
    plan = bench.plan(bench.add_bundle("zeta", f"exit {code}"))
    pid, running = await bench.runtime.create(plan)
    await bench.runtime.start(plan.service)
    assert not running
    assert await bench.next_end() == ("zeta", pid, Cause(CauseKind.CODE, code))


async def test_a_created_service_waits_for_its_start(bench: Bench) -> None:
    plan = bench.plan(bench.add_bundle("zeta", "echo started"))
    await bench.runtime.create(plan)
    assert bench.log("zeta") == ""
    await bench.runtime.start(plan.service)
    await bench.next_end()
    assert "stdout F started" in bench.log("zeta")


async def test_a_killed_service_tells_the_signal(bench: Bench) -> None:
    plan = await bench.run("zeta", "exec sleep 1000")
    bench.runtime.signal(plan.service, "SIGKILL")
    assert (await bench.next_end())[2] == Cause(CauseKind.SIGNAL, 9)


async def test_a_polite_signal_reaches_the_main_process(bench: Bench) -> None:
    script = "trap 'exit 5' TERM; echo ready > /said; while :; do sleep 1000 & wait $!; done"
    plan = await bench.run("zeta", script, mounts=[PROC, DEV, bench.bind_said()])
    await bench.said()
    bench.runtime.signal(plan.service, "SIGTERM")
    assert (await bench.next_end())[2] == Cause(CauseKind.CODE, 5)


async def test_a_signal_to_a_service_that_has_ended_is_no_error(bench: Bench) -> None:
    plan = await bench.run("zeta", "exit 0")
    await bench.next_end()
    bench.runtime.signal(plan.service, "SIGTERM")


async def test_lack_of_memory_is_told_apart_from_a_crash(bench: Bench) -> None:
    group = HIERARCHIES / "memory" / CGROUP / "zeta"
    if not (HIERARCHIES / "memory").is_dir():
        pytest.skip("the memory controller is not in version 1")
    group.mkdir(parents=True)
    (group / "memory.limit_in_bytes").write_text(f"{16 << 20}")
    service = bench.add_bundle("zeta", "tail -c 64m /dev/zero; exit 3", mounts=[PROC, DEV, ZERO])
    plan = bench.plan(replace(service, resources=Resources(memory=16 << 20)))
    await bench.runtime.create(plan)
    await bench.runtime.start(plan.service)
    assert (await bench.next_end())[2] == Cause(CauseKind.OOM)


async def test_a_dead_conmon_means_lost_while_the_service_may_live(bench: Bench) -> None:
    plan = await bench.run("zeta", "exec sleep 1000")
    record = bench.record("zeta")
    os.kill(record["conmon"]["pid"], signal.SIGKILL)
    assert (await bench.next_end())[2] == Cause(CauseKind.LOST)
    assert identify(record["container"]["pid"]) is not None
    await bench.runtime.delete(plan.service)
    assert identify(record["container"]["pid"]) is None


async def test_deleting_a_created_service_reports_no_end(bench: Bench) -> None:
    plan = bench.plan(bench.add_bundle("zeta", "exit 1"))
    await bench.runtime.create(plan)
    record = bench.record("zeta")
    await bench.runtime.delete(plan.service)
    assert identify(record["conmon"]["pid"]) is None
    assert identify(record["container"]["pid"]) is None
    assert bench.ends.empty()
    assert await bench.runtime.leftovers(Digest("")) == ()


async def test_deleting_twice_is_deleting_once(bench: Bench) -> None:
    plan = await bench.run("zeta", "exit 0")
    await bench.runtime.delete(plan.service)
    await bench.runtime.delete(plan.service)
    assert await bench.runtime.leftovers(Digest("")) == ()


async def test_a_service_can_run_again(bench: Bench) -> None:
    plan = await bench.run("zeta", "exit 1")
    await bench.next_end()
    pid, running = await bench.runtime.create(plan)
    await bench.runtime.start(plan.service)
    assert not running
    assert await bench.next_end() == ("zeta", pid, Cause(CauseKind.CODE, 1))
    assert bench.ends.empty()


async def test_a_program_that_is_missing_is_named(bench: Bench) -> None:
    plan = bench.plan(bench.add_bundle("zeta", "exit 0"))
    bad = replace(plan, spec=plan.spec.replace("/bin/sh", "/bin/nope"))
    with pytest.raises(MachineError, match=r"cannot create container zeta: .*/bin/nope") as caught:
        await bench.runtime.create(bad)
    assert caught.value.problem.code is Code.RUNTIME
    assert await bench.runtime.leftovers(Digest("")) == ()
    await bench.runtime.create(plan)  # nothing of the failure is in the way


async def test_a_runtime_that_hangs_is_killed_at_the_deadline(bench: Bench) -> None:
    plan = bench.plan(bench.add_bundle("zeta", "exit 0"))
    bench.replace_runtime_by_one_that_hangs(deadline=0.3)
    with pytest.raises(MachineError, match=r"cannot create .* no answer within 0.3 s"):
        await bench.runtime.create(plan)
    await gone(int(await bench.said()))


@pytest.mark.parametrize("ends", ["exec sleep 1000", "sleep 1000 & kill -9 $$"])
async def test_a_creation_that_hangs_and_is_called_off_fails_and_leaves_nothing(
    bench: Bench, ends: str
) -> None:
    """A runtime that hangs, and one that is killed while its child holds conmon's pipes."""
    plan = bench.plan(bench.add_bundle("zeta", "exit 0"))
    bench.replace_runtime_by_one_that_hangs(deadline=60, ends=ends)
    task = asyncio.get_running_loop().create_task(bench.runtime.create(plan))
    hanging = int(await bench.said())
    bench.runtime.call_off(plan.service)
    with pytest.raises(MachineError, match="it was called off"):
        async with asyncio.timeout(10):
            await task
    await gone(hanging)
    assert await bench.runtime.leftovers(Digest("")) == ()


async def test_a_creation_that_works_and_is_called_off_succeeds(bench: Bench) -> None:
    plan = bench.plan(bench.add_bundle("zeta", "exit 7"))
    bench.replace_runtime_by_one_that_hangs(deadline=60, ends='exec runc "$@"')
    task = asyncio.get_running_loop().create_task(bench.runtime.create(plan))
    await bench.said()
    bench.runtime.call_off(plan.service)
    pid, _ = await task
    await bench.runtime.start(plan.service)
    assert await bench.next_end() == ("zeta", pid, Cause(CauseKind.CODE, 7))


async def test_calling_off_what_is_not_being_created_changes_nothing(bench: Bench) -> None:
    plan = await bench.run("zeta", "exec sleep 1000")
    bench.runtime.call_off(plan.service)
    bench.runtime.signal(plan.service, "SIGKILL")
    assert (await bench.next_end())[2] == Cause(CauseKind.SIGNAL, 9)


async def test_cancelling_a_creation_leaves_nothing(bench: Bench) -> None:
    plan = bench.plan(bench.add_bundle("zeta", "exit 0"))
    bench.replace_runtime_by_one_that_hangs(deadline=20)
    task = asyncio.get_running_loop().create_task(bench.runtime.create(plan))
    hanging = int(await bench.said())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await gone(hanging)
    assert await bench.runtime.leftovers(Digest("")) == ()


def create_and_die(bench: Bench, plan: ContainerPlan) -> None:
    """Another agent creates and starts the service, and is killed."""
    dead = subprocess.run(
        [sys.executable, "-c", AGENT_THAT_DIES],
        input=pickle.dumps((bench.settings, bench.machine, plan)),
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert dead.returncode == -signal.SIGKILL


async def test_the_next_agent_adopts_what_a_killed_one_left(bench: Bench) -> None:
    plan = bench.plan(bench.add_bundle("zeta", "exec sleep 1000"))
    create_and_die(bench, plan)
    pid, running = await bench.runtime.create(plan)
    assert running
    assert pid == bench.record("zeta")["container"]["pid"]
    bench.runtime.signal(plan.service, "SIGKILL")
    assert await bench.next_end() == ("zeta", pid, Cause(CauseKind.SIGNAL, 9))


async def test_another_image_is_no_reason_to_adopt(bench: Bench) -> None:
    plan = await bench.run("zeta", "exec sleep 1000")
    old = bench.record("zeta")["container"]["pid"]
    bench.runtime.close()
    pid, running = await bench.new_agent().create(replace(plan, digest=Digest("f" * 64)))
    assert (pid != old, running) == (True, False)
    assert identify(old) is None


async def test_a_service_that_was_only_created_is_created_anew(bench: Bench) -> None:
    plan = bench.plan(bench.add_bundle("zeta", "exit 0"))
    old, _ = await bench.runtime.create(plan)
    bench.runtime.close()
    pid, running = await bench.new_agent().create(plan)
    assert (pid != old, running) == (True, False)
    assert bench.ends.empty()


async def test_what_ended_while_no_agent_was_there_is_known_and_created_anew(
    bench: Bench,
) -> None:
    plan = await bench.run("zeta", "exec sleep 1000")
    bench.runtime.close()
    victim = bench.record("zeta")["container"]["pid"]
    os.kill(victim, signal.SIGKILL)
    await gone(victim)  # a signal that was sent has not killed yet
    runtime = bench.new_agent()
    assert await runtime.find_end(plan) == Cause(CauseKind.SIGNAL, 9)
    await gone(bench.record("zeta")["conmon"]["pid"])
    _, running = await runtime.create(plan)
    assert not running
    assert bench.ends.empty()  # the exit file of the old one is not the new one's


async def test_an_end_before_watching_is_reported_once(bench: Bench) -> None:
    bench.runtime.close()
    bench.runtime = OciRuntime(bench.settings, bench.machine, open_logs(bench.settings))
    plan = bench.plan(bench.add_bundle("zeta", "exit 6"))
    pid, _ = await bench.runtime.create(plan)
    await bench.runtime.start(plan.service)
    await gone(bench.record("zeta")["conmon"]["pid"])
    bench.runtime.start_watching(lambda *end: bench.ends.put_nowait(end))
    assert await bench.next_end() == ("zeta", pid, Cause(CauseKind.CODE, 6))
    assert bench.ends.empty()


async def test_a_forgotten_service_is_listed(bench: Bench) -> None:
    await bench.run("zeta", "exec sleep 1000")
    bench.runtime.close()
    assert await bench.new_agent().leftovers(Digest("")) == ("zeta",)


async def test_a_command_in_the_container_tells_its_exit_code(bench: Bench) -> None:
    await bench.run("zeta", "exec sleep 1000")
    name = ServiceName("zeta")
    assert await bench.runtime.execute(name, ("/bin/sh", "-c", "exit 3"), 5) == (3, "")
    code, reason = await bench.runtime.execute(name, ("/bin/nope",), 5)
    assert code != 0
    assert "/bin/nope" in reason


async def test_a_command_in_the_container_that_hangs_is_killed(bench: Bench) -> None:
    await bench.run("zeta", "exec sleep 1000")
    name = ServiceName("zeta")
    with pytest.raises(MachineError, match=r"no answer within 0.5 s"):
        await bench.runtime.execute(name, ("/bin/sleep", "4711"), 0.5)
    shell = ("/bin/sh", "-c", "ps | grep -c '[s]leep 4711' >&2")
    assert await bench.runtime.execute(name, shell, 5) == (1, "0")


async def test_the_nice_value_is_set_before_the_start(bench: Bench) -> None:
    service = bench.add_bundle("zeta", "cut -d ' ' -f 19 /proc/self/stat")
    plan = bench.plan(replace(service, resources=Resources(nice=7)))
    await bench.runtime.create(plan)
    await bench.runtime.start(plan.service)
    await bench.next_end()
    assert "stdout F 7" in bench.log("zeta")


async def test_the_log_of_a_chatty_service_is_bounded(bench: Bench) -> None:
    await bench.run("zeta", "yes 0123456789012345678901234567890123456789 | head -c 3000000")
    await bench.next_end()
    assert 0 < len(bench.log("zeta")) <= bench.settings.logs.size


async def test_readiness_is_found_out_in_the_container(bench: Bench) -> None:
    script = "echo > /dev/there; ln -s /dev/there /dev/link; echo > /said; exec sleep 1000"
    await bench.run("zeta", script, mounts=[PROC, DEV, bench.bind_said()])
    await bench.said()
    plan, pid = bench.plans[0], bench.record("zeta")["container"]["pid"]
    check = ServiceReadiness(bench.runtime.execute).check
    for kind, more, ready in (
        (ProbeKind.FILE, {"path": "/dev/link"}, True),
        (ProbeKind.FILE, {"path": "/dev/none"}, False),
        (ProbeKind.FILE, {"path": "/../../etc/passwd"}, False),  # not the host's
        (ProbeKind.EXEC, {"command": ("/bin/sh", "-c", "exit 0")}, True),
        (ProbeKind.EXEC, {"command": ("/bin/sh", "-c", "exit 1")}, False),
    ):
        assert (await check(plan, Readiness(kind=kind, **more), pid, 2.0))[0] == ready, more
    for missing in ("nope", "/nope", "/dev/there"):  # the last one may not be executed
        with pytest.raises(MachineError) as caught:
            await check(plan, Readiness(kind=ProbeKind.EXEC, command=(missing,)), pid, 2.0)
        assert caught.value.problem.code is Code.READINESS, caught.value


async def test_a_read_only_service_finds_its_notify_socket(bench: Bench) -> None:
    service = bench.add_bundle("zeta", "exec sleep 1000", root={"readonly": True})
    shutil.move(bench.image / service.bundle / "lower", bench.image / service.bundle / "rootfs")
    plan = bench.plan(replace(service, readiness=Readiness(kind=ProbeKind.NOTIFY)))
    readiness, told = ServiceReadiness(bench.runtime.execute), asyncio.Event()
    pid, _ = await bench.runtime.create(plan)
    await bench.runtime.start(plan.service)
    readiness.listen(plan.service, plan.notify_dir, told.set)  # later, as a new agent does
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"READY=1", f"/proc/{pid}/root/.extsloader/notify")
    async with asyncio.timeout(10):
        await told.wait()
    readiness.forget(plan.service)


async def test_four_services_are_created_side_by_side(bench: Bench) -> None:
    plans = [bench.plan(bench.add_bundle(f"s{i}", f"exit {i}")) for i in range(4)]
    await asyncio.gather(*(bench.runtime.create(plan) for plan in plans))
    await asyncio.gather(*(bench.runtime.start(plan.service) for plan in plans))
    ends = [await bench.next_end() for _ in plans]
    assert sorted((name, cause.number) for name, _, cause in ends) == [
        (f"s{i}", i) for i in range(4)
    ]


async def test_a_missing_program_of_ours_comes_with_advice(bench: Bench) -> None:
    with pytest.raises(MachineError) as caught:
        OciRuntime(
            replace(bench.settings, runtime="no-such-runtime"),
            bench.machine,
            open_logs(bench.settings),
        )
    assert caught.value.problem.hint == "apt install no-such-runtime"


async def test_lines_reach_memlogd_from_the_service_itself(bench: Bench, memlogd: Memlogd) -> None:
    await bench.run("zeta", "echo out; echo err >&2; echo again > /dev/stdout; exit 7")
    assert (await bench.next_end())[2] == Cause(CauseKind.CODE, 7)
    assert (memlogd.read("zeta.out"), memlogd.read("zeta")) == ("out\nagain\n", "err\n")
    assert not bench.has_log("zeta")


async def test_lines_reach_memlogd_without_the_agent(bench: Bench, memlogd: Memlogd) -> None:
    script = "read line < /said; echo $line; exec sleep 1000"
    plan = await bench.run("zeta", script, mounts=[PROC, DEV, bench.bind_said()])
    bench.runtime.close()
    bench.tell("still here")
    with memlogd.take("zeta.out") as stream:
        assert stream.readline() == "still here\n"
        _, running = await bench.new_agent().create(plan)  # adopted
        assert running
        bench.runtime.signal(plan.service, "SIGKILL")
        await bench.next_end()
        assert stream.read() == ""  # nobody holds the other end any more


async def test_a_service_that_cannot_be_made_tells_us_why_not_memlogd(
    bench: Bench, memlogd: Memlogd
) -> None:
    plan = bench.plan(bench.add_bundle("zeta", "exit 0"))
    broken = replace(plan, spec=plan.spec.replace("/bin/sh", "/bin/nope"))
    with pytest.raises(MachineError, match=r"/bin/nope.*no such file"):
        await bench.runtime.create(broken)
    assert memlogd.read("zeta.out") == ""


async def test_crashes_do_not_make_the_log_longer(bench: Bench) -> None:
    """conmon counts from zero in each life."""
    small = replace(bench.settings, logs=Logs(size=16 << 10))
    bench.runtime.close()
    bench.settings = small
    plan = bench.plan(bench.add_bundle("zeta", "yes a-few-words | head -n 100"))
    for _ in range(8):
        await bench.new_agent().create(plan)
        await bench.runtime.start(plan.service)
        await bench.next_end()
        bench.runtime.close()
        assert len(bench.log("zeta")) <= small.logs.size


async def test_no_line_is_lost_when_conmon_starts_the_file_anew(bench: Bench) -> None:
    bench.runtime.close()
    bench.settings = replace(bench.settings, logs=Logs(size=16 << 10))
    logs = open_logs(bench.settings)
    plan = bench.plan(bench.add_bundle("zeta", "yes a-few-words | head -n 400; echo the end"))
    await bench.new_agent().create(plan)
    logs.keep()
    await bench.runtime.start(plan.service)
    await bench.next_end()
    assert logs.read_tail(plan.service)[-1] == "the end"
    assert "the end" not in bench.log("zeta", "log.1")
    lines = (bench.log("zeta", "log.1") + bench.log("zeta")).splitlines()
    words = [line.split(" ", 3)[3] for line in lines]  # one line may come in two parts
    assert "".join(words) == "a-few-words" * 400 + "the end"


@pytest.fixture
def small_disk(bench: Bench) -> Iterator[Path]:
    """16 KiB below the logs."""
    logs = Path(bench.settings.paths.logs)
    logs.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "extst-logs", logs], check=True)
    yield logs
    subprocess.run(["umount", "--lazy", logs], check=True)


@pytest.mark.usefixtures("small_disk")
async def test_f28_a_full_disk_of_logs_costs_lines_and_no_service(bench: Bench) -> None:
    script = "yes 0123456789 | head -n 20000; echo > /said; exec sleep 1000"
    await bench.run("zeta", script, mounts=[PROC, DEV, bench.bind_said()])
    await bench.said()
    assert len(bench.log("zeta")) == 16 << 10
