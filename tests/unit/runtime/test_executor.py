"""Each order is carried out, and each that is waited for is answered, whatever happens."""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable

import pytest
import structlog
from structlog.testing import capture_logs

from extsloader.model import effects as fx
from extsloader.model import events as ev
from extsloader.model.effects import Effect
from extsloader.model.events import Cause, CauseKind, Event, TimerId, TimerKind
from extsloader.model.ids import ServiceName
from extsloader.model.manifest import Service
from extsloader.model.plan import ContainerPlan
from extsloader.model.reasons import Code, Problem
from extsloader.model.status import Change
from extsloader.runtime.executor import CANCELLED, Executor
from extsloader.runtime.threads import Args, Result, Threads, Worker
from tests.fakes import builders, worlds
from tests.fakes.machine import FakeMachine, FakeStore, Medium
from tests.fakes.playbook import Inline

A = ServiceName("a")
STICK = builders.source()
IMAGE = builders.stored(builders.service("a"))
CRASH = Cause(CauseKind.CODE, 7)


def plan(spec: Service | None = None) -> ContainerPlan:
    found = worlds.state(worlds.running(spec or builders.service("a")), "a").plan
    assert found is not None
    return found


class Shell:
    """An executor on a fake machine, and what it reports."""

    def __init__(self, threads: Worker | None = None) -> None:
        self.machine = FakeMachine()
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.records: list[Change] = []
        self.executor = Executor(
            self.machine.ports(),
            threads or Inline(),
            self.events.put_nowait,
            self.records.append,
            structlog.get_logger(),
        )
        self.medium = Medium(source=STICK, superblock=builders.squashfs(), verdict=IMAGE)
        self.machine.media[STICK.id] = self.medium

    async def ask(self, effect: Effect) -> Event:
        self.executor.execute(effect)
        return await self.events.get()


@pytest.fixture
async def shell() -> AsyncIterator[Shell]:
    shell = Shell()
    shell.executor.start()
    yield shell
    await shell.executor.close()


async def test_what_happens_by_itself_is_reported(shell: Shell) -> None:
    shell.machine.plug(shell.medium)
    assert await shell.events.get() == ev.SourceSeen(STICK)
    assert await shell.ask(fx.ListSources("udev")) == ev.SourcesListed("udev", (STICK,))


class EndsMeanwhile(Inline):
    """A service ends while its limits are set."""

    machine: FakeMachine

    async def run(
        self, work: Callable[Args, Result], *args: Args.args, **kw: Args.kwargs
    ) -> Result:
        done = await super().run(work, *args, **kw)
        self.machine.end("a", CRASH)
        return done


async def test_an_end_during_the_creation_is_its_one_answer() -> None:
    threads = EndsMeanwhile()
    shell = Shell(threads)
    threads.machine = shell.machine
    shell.executor.start()
    assert await shell.ask(fx.CreateService(plan(), 1)) == ev.ServiceExited(A, 1, CRASH)
    await shell.ask(fx.RemoveService(plan(), 1, unmount=True))
    assert shell.events.empty()
    await shell.executor.close()


async def test_small_orders_are_done_at_once(shell: Shell) -> None:
    change = Change(subject="agent", old="a", new="b")
    timer = TimerId(TimerKind.CHOOSE)
    shell.executor.execute(fx.Record(change))
    shell.executor.execute(fx.Finish())
    shell.executor.execute(fx.SetTimer(timer, 3600))
    shell.executor.execute(fx.CancelTimer(timer))
    assert shell.records == [change]
    assert await shell.ask(fx.SetTimer(timer, 0)) == ev.TimerFired(timer)


async def test_an_image_is_probed_verified_mounted_unmounted_and_dropped(shell: Shell) -> None:
    assert await shell.ask(fx.Probe(STICK)) == ev.Probed(STICK.id, builders.squashfs())
    progress = await shell.ask(fx.Verify(STICK))
    assert progress == ev.VerifyProgressed(STICK.id, 0, STICK.size)
    assert await shell.events.get() == ev.Verified(STICK.id, IMAGE)
    mounted = await shell.ask(fx.MountImage(IMAGE))
    assert isinstance(mounted, ev.ImageMounted)
    assert [bundle.service for bundle in mounted.bundles] == ["a"]
    assert await shell.ask(fx.UnmountImage(IMAGE.digest)) == ev.ImageUnmounted(IMAGE.digest)
    shell.executor.execute(fx.DropImage(IMAGE.digest))
    with capture_logs():
        failed = await shell.ask(fx.MountImage(IMAGE))
    assert isinstance(failed, ev.ImageFailed), "its descriptor went with it"
    assert f"drop {IMAGE.digest}" in shell.machine.calls


async def test_an_image_is_checked_and_dropped_with_its_mount(shell: Shell) -> None:
    await shell.ask(fx.Verify(STICK))
    assert isinstance(await shell.events.get(), ev.Verified)
    assert isinstance(await shell.ask(fx.MountImage(IMAGE, verity=True)), ev.ImageMounted)
    assert await shell.ask(fx.CheckImage(IMAGE.digest)) == ev.ImageChecked(IMAGE.digest)
    shell.machine.damaged.add(IMAGE.digest)
    checked = await shell.ask(fx.CheckImage(IMAGE.digest))
    assert isinstance(checked, ev.ImageChecked)
    assert checked.problem
    assert checked.problem.code is Code.VERITY
    unmounted = await shell.ask(fx.UnmountImage(IMAGE.digest, drop=True))
    assert unmounted == ev.ImageUnmounted(IMAGE.digest)
    assert not shell.machine.stored


async def test_the_loop_goes_on_while_a_large_file_is_deleted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shell = Shell(Threads())
    deleting, go_on = asyncio.Event(), threading.Event()
    met: list[bool] = []
    loop = asyncio.get_running_loop()

    def take_time(*_: object) -> None:
        loop.call_soon_threadsafe(deleting.set)
        met.append(go_on.wait(5))

    monkeypatch.setattr(FakeStore, "drop", take_time)
    shell.executor.execute(fx.DropImage(IMAGE.digest))
    await deleting.wait()
    go_on.set()
    await shell.executor.close()
    assert met == [True]


async def test_a_helper_begins_when_nothing_is_being_deleted_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise it would find or publish an image whose name is taken away a moment later."""
    shell = Shell(Threads())
    go_on = threading.Event()
    monkeypatch.setattr(FakeStore, "drop", lambda *_: go_on.wait(5))
    shell.executor.execute(fx.DropImage(IMAGE.digest))
    shell.executor.execute(fx.Verify(STICK))
    for _ in range(10):
        await asyncio.sleep(0)
    assert shell.machine.calls == []
    go_on.set()
    assert isinstance(await shell.events.get(), ev.VerifyProgressed)
    await shell.executor.close()


async def test_an_image_verified_twice_keeps_its_first_descriptor(shell: Shell) -> None:
    for _ in range(2):
        await shell.ask(fx.Verify(STICK))
        assert isinstance(await shell.events.get(), ev.Verified)
    assert isinstance(await shell.ask(fx.MountImage(IMAGE)), ev.ImageMounted)


async def test_a_bundle_that_cannot_be_read_is_a_problem_of_its_service(shell: Shell) -> None:
    shell.machine.behave("a").unreadable = True
    await shell.ask(fx.Verify(STICK))
    await shell.events.get()
    mounted = await shell.ask(fx.MountImage(IMAGE))
    assert isinstance(mounted, ev.ImageMounted)
    assert [(name, problem.code) for name, problem in mounted.problems] == [("a", Code.BUNDLE)]


async def test_a_service_lives_and_dies(shell: Shell) -> None:
    found = plan(builders.service("a", readiness=worlds.BY_TCP))
    created = await shell.ask(fx.CreateService(found, 1))
    assert created == ev.ServiceCreated(A, 1, 1001)
    assert await shell.ask(fx.StartService(A, 1)) == ev.ServiceStarted(A, 1)
    ready = ev.ServiceChecked(A, 1, ready=True)
    assert await shell.ask(fx.CheckReady(A, 1, worlds.BY_TCP)) == ready
    ended = await shell.ask(fx.SignalService(A, 1, "SIGINT"))
    assert ended == ev.ServiceExited(A, 1, Cause(CauseKind.SIGNAL, signal.SIGINT))
    assert "signal a SIGINT" in shell.machine.calls
    assert await shell.ask(fx.RemoveService(found, 1, unmount=True)) == ev.ServiceRemoved(A, 1)
    assert shell.machine.is_clean()


async def test_an_end_that_nobody_saw_is_the_answer_to_the_creation(shell: Shell) -> None:
    shell.machine.ends["a"] = CRASH
    assert await shell.ask(fx.CreateService(plan(), 1)) == ev.ServiceExited(A, 1, CRASH)
    assert await shell.ask(fx.RemoveService(plan(), 1, unmount=True)) == ev.ServiceRemoved(A, 1)
    assert shell.machine.is_clean()


async def test_calling_a_creation_off_is_passed_on(shell: Shell) -> None:
    shell.executor.execute(fx.CallOffCreation(A))
    assert "call off a" in shell.machine.calls


async def test_a_killed_service_reports_its_end(shell: Shell) -> None:
    await shell.ask(fx.CreateService(plan(), 1))
    await shell.ask(fx.StartService(A, 1))
    ended = await shell.ask(fx.KillService(A, 1))
    assert ended == ev.ServiceExited(A, 1, Cause(CauseKind.SIGNAL, 9))


async def test_a_restart_keeps_the_mounts(shell: Shell) -> None:
    await shell.ask(fx.CreateService(plan(), 1))
    await shell.ask(fx.RemoveService(plan(), 1, unmount=False))
    assert shell.machine.applied
    assert not shell.machine.containers


async def test_an_end_of_a_run_that_is_over_is_no_news(shell: Shell) -> None:
    await shell.ask(fx.CreateService(plan(), 1))
    shell.machine.on_exit(A, 4711, CRASH)
    shell.machine.on_exit(ServiceName("ghost"), 1001, CRASH)
    assert shell.events.empty()


async def test_a_service_says_ready_for_its_own_run(shell: Shell) -> None:
    found = plan(builders.service("a", readiness=worlds.BY_NOTIFY))
    await shell.ask(fx.CreateService(found, 2))
    shell.machine.notify("a")
    assert await shell.events.get() == ev.ServiceNotified(A, 2)


async def test_what_the_machine_refuses_is_answered(shell: Shell) -> None:
    shell.machine.behave("a").create_fails = Problem(Code.RUNTIME, "no such file")
    shell.medium.verdict = Problem(Code.SIGNATURE, "cannot trust it")
    failed = await shell.ask(fx.CreateService(plan(), 1))
    assert isinstance(failed, ev.ServiceFailed)
    assert failed.problem.code is Code.RUNTIME
    await shell.ask(fx.Verify(STICK))
    assert await shell.events.get() == ev.Refused(STICK.id, shell.medium.verdict)


async def test_a_surprise_is_logged_and_answered(shell: Shell) -> None:
    shell.machine.media.clear()  # the fake's KeyError stands for any bug in an adapter
    with capture_logs() as logs:
        refused = await shell.ask(fx.Probe(STICK))
    assert isinstance(refused, ev.Refused)
    assert refused.problem.code is Code.STATE
    assert refused.problem.message.startswith("cannot carry out Probe: KeyError")
    assert [(entry["event"], entry["effect"]) for entry in logs] == [("surprise", "Probe")]


async def test_a_helper_that_is_called_off_is_answered(shell: Shell) -> None:
    shell.medium.held.clear()
    assert isinstance(await shell.ask(fx.Verify(STICK)), ev.VerifyProgressed)
    assert await shell.ask(fx.CancelHelper(STICK.id)) == ev.Refused(STICK.id, CANCELLED)


async def test_a_helper_that_is_called_off_before_it_began_is_answered_too(shell: Shell) -> None:
    """Plug and pull in one burst of events: both orders come before the task's first step."""
    shell.executor.execute(fx.Probe(STICK))
    assert await shell.ask(fx.CancelHelper(STICK.id)) == ev.Refused(STICK.id, CANCELLED)


async def test_a_helper_that_has_ended_cannot_be_called_off(shell: Shell) -> None:
    assert isinstance(await shell.ask(fx.Probe(STICK)), ev.Probed)
    shell.executor.execute(fx.CancelHelper(STICK.id))
    assert isinstance(await shell.ask(fx.Probe(STICK)), ev.Probed)


async def test_a_helper_is_called_off_once(shell: Shell) -> None:
    """A second time would interrupt it while it makes sure that its process is gone."""
    shell.medium.held.clear()
    await shell.ask(fx.Verify(STICK))
    shell.executor.execute(fx.CancelHelper(STICK.id))
    task = next(task for task in asyncio.all_tasks() if task.get_name() == "Verify")
    shell.executor.execute(fx.CancelHelper(STICK.id))
    assert task.cancelling() == 1


async def test_an_order_that_nobody_can_carry_out_is_a_surprise(shell: Shell) -> None:
    class Dance:
        pass

    with capture_logs():
        failed = await shell.ask(Dance())  # type: ignore[arg-type]
    assert isinstance(failed, ev.EffectFailed)
    assert "no way to carry out Dance" in failed.problem.message


async def test_what_a_removal_meets_does_not_keep_it_from_going_on(shell: Shell) -> None:
    shell.machine.behave("a").delete_fails = Problem(Code.RUNTIME, "busy")
    await shell.ask(fx.CreateService(plan(), 1))
    removed = await shell.ask(fx.RemoveService(plan(), 1, unmount=True))
    assert isinstance(removed, ev.ServiceRemoved)
    assert removed.problem is not None
    assert removed.problem.message == "cannot do it: busy"
    assert not shell.machine.applied
    assert not shell.machine.groups
