"""What an agent remembers of the one before, and when it is written."""

from dataclasses import replace
from typing import Any

import pytest

from extsloader.core import history
from extsloader.core.history import APART, KEPT, SAVE
from extsloader.model import effects as fx
from extsloader.model import events as ev
from extsloader.model.events import Cause, CauseKind
from extsloader.model.history import Ending, History, Hold, ServiceRecord
from extsloader.model.ids import Digest, ServiceName
from extsloader.model.machine import Machine
from extsloader.model.reasons import Code, Problem
from extsloader.model.status import Change
from extsloader.model.world import Saving, ServicePhase, World
from tests.fakes import builders, worlds

A, B = ServiceName("a"), ServiceName("b")
CRASH = Cause(CauseKind.CODE, 7)
NO = Problem(Code.STATE, "cannot write it: no space left on device")
DIGEST = builders.stored(builders.service("a")).digest
RECORD = ServiceRecord(
    digest=DIGEST, phase="parked", restarts=4, failures=3, last_exit=CRASH, problem=NO
)


def device(boot: str = "this", **fields: Any) -> World:
    return builders.world(machine=Machine(arch="amd64", boot=boot), **fields)


def begin(found: History | None, *problems: Problem) -> World:
    return history.begin(device(), found, problems, 9.0)


def change(subject: str, number: int, code: Code | None = None) -> Change:
    return Change(wall=number, subject=subject, old="a", new="b", reason=f"{number}", code=code)


@pytest.mark.parametrize(
    ("ended", "boot", "told"),
    [
        (Ending.STOPPED, "this", "stopped"),
        (Ending.STOPPED, "other", "stopped"),
        (Ending.HANDED_OVER, "this", "handed-over"),
        (Ending.RUNNING, "this", "crashed"),
        (Ending.RUNNING, "other", "power-lost"),
    ],
)
def test_the_end_of_the_run_before_is_told(ended: Ending, boot: str, told: str) -> None:
    changes = {
        "service a": (change("service a", 5, Code.EXIT), change("service a", 6)),
        "agent": (change("agent", 7),),
    }
    previous = begin(History(boot=boot, started=2, ended=ended, changes=changes)).previous
    assert previous
    assert (previous.ended, previous.message) == (told, history.REASONS[told])
    assert (previous.started, previous.last_sign) == (2, 7)
    assert previous.last_error == "service a: 5"


def test_a_first_start_has_none_before_it() -> None:
    assert begin(None).previous is None


def test_a_history_that_is_lost_is_told_and_nothing_else_depends_on_it() -> None:
    world = begin(None, NO)
    assert world.previous
    assert world.previous.ended == "unknown"
    assert world.problems == (NO,)
    assert world.history == History(boot="this", started=9.0, starts=1)


def test_an_agent_that_starts_counts_as_crashed_until_it_says_more() -> None:
    assert begin(History(ended=Ending.STOPPED, boot="this")).history.ended is Ending.RUNNING


def test_a_pause_survives_a_boot_and_a_stop_does_not() -> None:
    holds = {A: Hold.STOPPED, B: Hold.PAUSED}
    assert begin(History(boot="this", holds=holds)).history.holds == holds
    assert begin(History(boot="other", holds=holds)).history.holds == {B: Hold.PAUSED}


def planned(found: History) -> World:
    image = builders.stored(builders.service("a"))
    world = worlds.verified(image, begin(found))
    return worlds.tell(world, worlds.mounted(image)).world


def test_who_gave_up_under_an_earlier_agent_stays_so_with_its_history() -> None:
    state = worlds.state(planned(History(boot="this", services={A: RECORD})), "a")
    assert (state.phase, state.problem) == (ServicePhase.PARKED, NO)
    assert (state.failures, state.last_exit, history.count_restarts(state)) == (3, CRASH, 4)


def test_who_was_backing_off_is_tried_at_once_with_its_failures_counted() -> None:
    record = replace(RECORD, phase="backing-off")
    state = worlds.state(planned(History(boot="this", services={A: record})), "a")
    assert (state.phase, state.failures, state.problem) == (ServicePhase.CREATING, 3, None)


def test_after_a_boot_everybody_gets_a_new_chance_and_keeps_its_counts() -> None:
    state = worlds.state(planned(History(boot="other", services={A: RECORD})), "a")
    assert (state.phase, state.failures) == (ServicePhase.CREATING, 0)
    assert (state.last_exit, history.count_restarts(state)) == (CRASH, 4)


def test_what_was_remembered_of_another_image_does_not_count() -> None:
    record = replace(RECORD, digest=Digest("f" * 64))
    state = worlds.state(planned(History(boot="this", services={A: record})), "a")
    assert (state.phase, state.restarts_before) == (ServicePhase.CREATING, 0)


def test_the_next_agent_recalls_what_this_one_collected() -> None:
    world = worlds.running(builders.service("a"), a=ServicePhase.PARKED)
    world = worlds.change(world, "a", run=3, restarts_before=2, problem=NO, failures=5)
    record = history.collect(world).services[A]
    assert (record.phase, record.restarts, record.failures) == ("parked", 4, 5)


def test_only_the_newest_changes_of_each_subject_are_kept() -> None:
    many = tuple(change("service a", number) for number in range(KEPT + 3))
    candidate = change("candidate /dev/sdb", 99)
    world = history.remember(history.remember(builders.world(), many), (candidate,))
    assert [c.wall for c in history.changes_of(world, A)] == list(range(3, KEPT + 3))
    assert world.history.changes["candidate"] == (candidate,)
    assert history.changes_of(world, B) == ()
    assert history.remember(world, ()) is world


def test_services_of_other_images_are_forgotten() -> None:
    changes = (change("service ghost", 1), change("service a", 2), change("agent", 3))
    world = worlds.running(builders.service("a"))
    known = replace(world.history, services={ServiceName("ghost"): RECORD})
    kept = history.collect(history.remember(replace(world, history=known), changes))
    assert set(kept.services) == {A}
    assert {"service a", "agent"} <= set(kept.changes)
    assert "service ghost" not in kept.changes


def test_nothing_is_forgotten_before_there_is_an_image_and_after_its_end() -> None:
    begun = begin(History(boot="this", services={A: RECORD}))
    assert history.collect(begun).services == {A: RECORD}
    old = worlds.change(worlds.running(builders.service("a")), "a", run=4)
    gone = history.settle(old, replace(old, services={}), builders.moment()).world
    assert gone.history.services[A].restarts == 3


@pytest.mark.parametrize(
    "impossible",
    [
        History(services={A: replace(RECORD, restarts=-1)}),
        History(services={A: replace(RECORD, failures=-1)}),
        History(changes={"agent": tuple(change("agent", n) for n in range(33))}),
        History(changes={"agent": (replace(change("agent", 1), wall=1e300),)}),
        History(started=-1.0),
    ],
)
def test_what_no_agent_can_have_written_is_not_believed(impossible: History) -> None:
    assert not history.is_possible(impossible)
    assert history.is_possible(History(services={A: RECORD}))


def test_a_quiet_agent_writes_soon_and_a_busy_one_now_and_then() -> None:
    quiet = replace(worlds.running(builders.service("a")), saving=Saving(last=0))
    changed = worlds.change(quiet, "a", failures=1)
    for now, delay in ((100.0, 1.0), (3.0, APART - 3.0)):
        step = history.settle(quiet, changed, builders.moment(now))
        assert step.effects == (fx.SetTimer(SAVE, delay),)
        again = history.settle(quiet, step.world, builders.moment(now))
        assert not again.effects, "one timer is enough"


def test_what_is_not_to_be_remembered_is_no_reason_to_write() -> None:
    world = builders.world()
    assert history.settle(world, replace(world, overdue=True), builders.moment()).effects == ()


def test_one_write_at_a_time_and_the_newest_state_after_it() -> None:
    world = history.save(builders.world(), builders.moment(50)).world
    changed = replace(world, history=replace(world.history, started=1.0))
    waiting = history.settle(world, changed, builders.moment(51))
    assert not waiting.effects
    done = worlds.tell(waiting.world, ev.HistorySaved(), now=52)
    assert done.world.saving.waiting
    fired = history.fire(done.world, builders.moment(57))
    assert fired.effects == (fx.SaveHistory(changed.history),)


def test_a_write_that_failed_is_told_until_one_succeeds() -> None:
    world = history.save(builders.world(), builders.moment(50)).world
    failed = history.take_saved(world, NO, builders.moment(51))
    assert failed.world.saving.problem == NO
    assert failed.effects == (fx.SetTimer(SAVE, APART - 1),)
    again = history.fire(failed.world, builders.moment(66)).world
    assert again.saving.problem == NO
    assert history.take_saved(again, None, builders.moment(67)).world.saving.problem is None


def test_a_write_that_cannot_wait_goes_before_the_timer_or_right_after_another() -> None:
    idle = builders.world()
    due = history.settle(idle, replace(idle, history=History(started=1)), builders.moment(50)).world
    assert history.save(due, builders.moment(50)).effects == (
        fx.CancelTimer(SAVE),
        fx.SaveHistory(due.history),
    )
    writing = history.save(due, builders.moment(50)).world
    assert history.save(writing, builders.moment(50)).world.saving.due
