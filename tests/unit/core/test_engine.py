"""Each event finds its way to the part that it is about, and every order that is due is given."""

from dataclasses import replace

import pytest

from extsloader.core import engine
from extsloader.core.history import APART, SAVE
from extsloader.core.step import Step
from extsloader.model import effects as fx
from extsloader.model import events as ev
from extsloader.model.errors import IllegalTransitionError
from extsloader.model.events import Cause, CauseKind, Event, TimerId, TimerKind
from extsloader.model.ids import ServiceName
from extsloader.model.machine import Machine
from extsloader.model.reasons import Code, Problem
from extsloader.model.settings import Settings
from extsloader.model.world import CandidatePhase, ImagePhase, ServicePhase, World
from tests.fakes import builders, worlds
from tests.fakes.worlds import tell

STICK = builders.source()
IMAGE = builders.stored(builders.service("a"))
A = ServiceName("a")
NO = Problem(Code.IO, "cannot read /dev/sdb")


def phase(world: World) -> CandidatePhase:
    return world.candidates[STICK.id].phase


def test_at_the_start_every_provider_lists_what_it_has() -> None:
    step = tell(builders.world(), ev.AgentStarted(("udev", "files")))
    hourly = fx.SetTimer(TimerId(TimerKind.CLOCK), 3600)
    assert step.effects == (fx.ListSources("udev"), fx.ListSources("files"), hourly)
    assert step.world.awaited == {"udev", "files"}


def test_an_agent_that_is_switched_off_does_nothing_about_any_stick() -> None:
    world = builders.world(settings=Settings(enabled=False))
    step = tell(world, ev.AgentStarted(("udev",)), ev.SourceSeen(STICK))
    assert worlds.kinds(step) == ["SetTimer"], "it remembers what time it is"


def test_a_good_stick_goes_all_the_way_to_a_running_service() -> None:
    started: tuple[tuple[Event, list[str]], ...] = (
        (ev.SourceSeen(STICK), ["Probe"]),
        (ev.Probed(STICK.id, builders.squashfs()), ["Verify"]),
        (ev.VerifyProgressed(STICK.id, 1, 2), []),
        (ev.Verified(STICK.id, IMAGE), ["SaveMemory", "SaveClock", "MountImage"]),
        (worlds.mounted(IMAGE), ["CreateService"]),
        (ev.ServiceCreated(A, 1, 7), ["StartService"]),
        (ev.ServiceStarted(A, 1), [*["CancelTimer"] * 3, "SetTimer"]),
    )
    world = builders.world()
    for event, orders in started:
        step = tell(world, event)
        assert worlds.kinds(step) == orders
        world = step.world
    assert worlds.phases(world) == {"a": "ready"}


def test_a_stop_undoes_it_all_and_ends_once() -> None:
    world = worlds.running(builders.service("a"), a=ServicePhase.READY)
    stopped: tuple[tuple[Event, list[str]], ...] = (
        (ev.StopAsked(), [*["CancelTimer"] * 3, "SignalService", "SetTimer", "CancelTimer"]),
        (
            ev.ServiceExited(A, 1, Cause(CauseKind.SIGNAL, 15)),
            [*["CancelTimer"] * 5, "RemoveService"],
        ),
        (ev.ServiceRemoved(A, 1), ["UnmountImage"]),
        (ev.ImageUnmounted(IMAGE.digest), ["Finish"]),
        (ev.SourceGone("/dev/sdb"), []),
    )
    for event, orders in stopped:
        step = tell(world, event)
        assert worlds.kinds(step) == orders
        world = step.world
    assert world.finished
    assert not world.services


@pytest.mark.parametrize("event", [ev.SourceGone("/dev/sdb"), ev.SourcesListed("udev", ())])
def test_a_stick_that_is_gone_or_not_listed_is_not_there(event: Event) -> None:
    step = tell(builders.world(), ev.SourceSeen(STICK), event)
    assert not step.world.candidates[STICK.id].present
    assert worlds.kinds(step) == ["Probe", "CancelHelper"]


def test_lost_events_ask_for_a_listing() -> None:
    assert tell(builders.world(), ev.EventsLost("udev")).effects == (fx.ListSources("udev"),)


def test_a_refused_stick_is_tried_again_when_its_timer_says_so() -> None:
    step = tell(builders.world(), ev.SourceSeen(STICK), ev.Refused(STICK.id, NO))
    assert phase(step.world) is CandidatePhase.RETRYING
    retry = ev.TimerFired(TimerId(TimerKind.RETRY, STICK.id))
    assert tell(step.world, retry).effects == (fx.Probe(STICK),)


def test_the_choice_ends_when_its_timer_says_so() -> None:
    waiting = worlds.verified(IMAGE, builders.world(awaited=frozenset({"files"})))
    assert waiting.choosing
    step = tell(waiting, ev.TimerFired(TimerId(TimerKind.CHOOSE)))
    assert worlds.kinds(step) == ["CancelTimer", "MountImage"]


def test_a_timer_of_a_service_goes_to_the_service() -> None:
    world = worlds.running(builders.service("a"), a=ServicePhase.BACKING_OFF)
    step = tell(world, ev.TimerFired(TimerId(TimerKind.BACK_OFF, A)))
    assert worlds.kinds(step) == ["CreateService"]


def test_an_image_that_cannot_be_mounted_gives_way_to_the_next_best() -> None:
    better = builders.stored(builders.service("b"), sequence=2)
    waiting = builders.world(awaited=frozenset({"files"}))
    world = worlds.verified(IMAGE, waiting)
    world = worlds.verified(better, world, "/dev/sdc")
    chosen = tell(world, ev.SourcesListed("files", ()))
    assert fx.MountImage(better) in chosen.effects
    step = tell(chosen.world, ev.ImageFailed(better.digest, NO))
    assert step.effects == (fx.SetTimer(TimerId(TimerKind.MOUNT, better.digest), 1.0),
                            fx.MountImage(IMAGE))  # fmt: skip


@pytest.mark.parametrize(
    "event",
    [
        ev.ServiceExited(A, 1, Cause(CauseKind.SIGNAL, 7)),
        ev.ServiceFailed(A, 1, NO),
        ev.TimerFired(TimerId(TimerKind.IMAGE)),
    ],
)
def test_dm_verity_is_asked_when_a_service_ends_and_from_time_to_time(event: Event) -> None:
    started = worlds.running(builders.service("a"), a=ServicePhase.STARTING)
    world = replace(started, machine=Machine(arch="amd64", no_verity=""))
    asked = tell(world, event)
    assert fx.CheckImage(IMAGE.digest) in asked.effects
    damage = Problem(Code.VERITY, "cannot trust it: a bad block")
    answered = tell(asked.world, ev.ImageChecked(IMAGE.digest, damage))
    assert answered.world.images[IMAGE.digest].damage == damage


def test_a_surprise_is_remembered_and_the_agent_lives_on() -> None:
    step = tell(builders.world(), ev.EffectFailed(Problem(Code.IO, "cannot drop it: disk full")))
    assert [p.message for p in step.world.problems] == ["cannot drop it: disk full"]
    assert not step.effects


def test_a_listing_that_fails_is_told_and_not_waited_for() -> None:
    waiting = builders.world(awaited=frozenset({"files"}))
    step = tell(worlds.verified(IMAGE, waiting), ev.ListingFailed("files", NO))
    assert step.world.problems == (NO,)
    assert fx.MountImage(IMAGE) in step.effects


def test_a_stop_while_sticks_are_read_waits_for_their_helpers() -> None:
    other = builders.source("/dev/sdc")
    begun = tell(
        builders.world(), ev.SourceSeen(STICK), ev.SourceSeen(other), ev.Refused(STICK.id, NO)
    )
    stopping = tell(begun.world, ev.StopAsked())
    assert stopping.effects == (
        fx.CancelTimer(TimerId(TimerKind.RETRY, STICK.id)),
        fx.CancelHelper(other.id),
    )
    assert not stopping.world.finished
    assert tell(stopping.world, ev.Refused(other.id, NO)).effects == (fx.Finish(),)


def test_a_stop_waits_for_no_runtime_that_hangs() -> None:
    world = worlds.running(builders.service("a"), a=ServicePhase.CREATING)
    stopping = tell(world, ev.StopAsked())
    assert stopping.effects == (fx.CallOffCreation(A),)
    failed = tell(stopping.world, ev.ServiceFailed(A, 1, NO))
    assert worlds.kinds(failed)[-1] == "RemoveService"


def test_a_stop_while_an_image_is_being_mounted_waits_and_unmounts_it() -> None:
    stopping = tell(worlds.verified(IMAGE), ev.StopAsked())
    assert not stopping.effects
    mounted = tell(stopping.world, worlds.mounted(IMAGE, "a"))
    assert mounted.effects == (fx.UnmountImage(IMAGE.digest),)


def test_an_agent_that_hands_over_stops_nothing_but_its_helpers() -> None:
    other = builders.source("/dev/sdc")
    running = worlds.running(builders.service("a"), a=ServicePhase.READY)
    busy = tell(running, ev.SourceSeen(other)).world
    leaving = tell(busy, ev.HandOverAsked())
    assert worlds.kinds(leaving) == ["CancelHelper", "Finish"]
    assert leaving.world.finished
    assert leaving.world.services == busy.services


def test_an_agent_that_stops_already_does_not_hand_over() -> None:
    stopping = tell(worlds.verified(IMAGE), ev.StopAsked()).world
    assert tell(stopping, ev.HandOverAsked()).world == stopping


def test_an_agent_with_nothing_to_undo_ends_at_once() -> None:
    assert tell(builders.world(), ev.StopAsked()).effects == (fx.Finish(),)


def test_a_broken_image_holds_up_no_stop() -> None:
    broken = tell(worlds.verified(IMAGE), ev.ImageFailed(IMAGE.digest, NO))
    assert broken.world.images[IMAGE.digest].phase is ImagePhase.BROKEN
    assert tell(broken.world, ev.StopAsked()).effects == (fx.Finish(),)


def test_an_impossible_report_leaves_the_world_as_it_was() -> None:
    world = builders.world()
    with pytest.raises(IllegalTransitionError):
        engine.step(world, ev.Refused(STICK.id, NO), builders.moment())
    assert world == builders.world()


def test_every_change_is_recorded_before_the_orders_that_it_leads_to() -> None:
    step = engine.step(builders.world(), ev.SourceSeen(STICK), builders.moment())
    record, probe, saving = step.effects
    assert isinstance(record, fx.Record)
    assert record.change.new == "probing"
    assert isinstance(probe, fx.Probe)
    assert saving == fx.SetTimer(SAVE, APART)


def test_an_event_that_changes_nothing_gives_the_same_world() -> None:
    world = replace(worlds.running(builders.service("a"), a=ServicePhase.READY))
    step = engine.step(world, ev.SourceSeen(STICK), builders.moment())
    assert step == Step(world)
    assert step.world is world
