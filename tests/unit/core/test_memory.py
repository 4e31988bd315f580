"""When floors rise, what is refused late, and what the clock teaches."""

from dataclasses import replace

import pytest

from extsloader.core import engine, memory
from extsloader.core.step import Step
from extsloader.model import effects as fx
from extsloader.model import events as ev
from extsloader.model.events import Cause, CauseKind, TimerFired
from extsloader.model.ids import ServiceName
from extsloader.model.machine import Moment
from extsloader.model.manifest import Health, HealthAction, ProbeKind
from extsloader.model.reasons import Code, Problem
from extsloader.model.source import SourceKind
from extsloader.model.trust import Bounds, Flag, Memory, Release
from extsloader.model.world import CandidatePhase, Image, ServicePhase, World
from tests.fakes import builders, worlds
from tests.fakes.worlds import tell

READY, STARTED, PARKED = ServicePhase.READY, ServicePhase.STARTED, ServicePhase.PARKED
A, B = builders.service("a", essential=True), builders.service("b")
STICK = builders.source()
HOUR = TimerFired(memory.CLOCK)
NOTHING = ev.SourceGone("/dev/none")
DAY = 86400.0
ISSUED = 1767225600.0  # of every image here: 2026-01-01T00:00:00Z


def remembering(*floors: Release, **fields: object) -> World:
    remembered = replace(Memory(floors=floors), **fields)  # type: ignore[arg-type]
    return builders.world(bounds=Bounds(memory=remembered))


def floors(world: World) -> list[tuple[str, int]]:
    return [(floor.name, floor.sequence) for floor in world.bounds.memory.floors]


def test_an_image_that_runs_well_for_long_enough_raises_the_floor() -> None:
    world = worlds.running(A, a=STARTED)
    assert not world.on_probation
    step = tell(worlds.change(world, "a", phase=READY), NOTHING)
    assert step.effects == (fx.SetTimer(memory.PROBATION, 600.0),)
    raised = tell(step.world, TimerFired(memory.PROBATION))
    kept = fx.SaveMemory(raised.world.bounds.memory)
    assert raised.effects == (kept, fx.CancelTimer(memory.PROBATION))
    assert floors(raised.world) == [("pkgs", 1)]
    assert not raised.world.on_probation


@pytest.mark.parametrize(
    ("a", "b", "due"),
    [
        (READY, READY, True),
        (READY, PARKED, True),
        (ServicePhase.FINISHED, STARTED, True),
        (STARTED, READY, False),
        (ServicePhase.BACKING_OFF, READY, False),
        (PARKED, READY, False),
    ],
)
def test_only_the_essential_services_are_on_probation(
    a: ServicePhase, b: ServicePhase, due: bool
) -> None:
    assert worlds.running(A, B, a=a, b=b).on_probation is due


def test_where_none_is_essential_all_are() -> None:
    c = builders.service("c")
    assert worlds.running(B, c, b=READY, c=READY).on_probation
    assert not worlds.running(B, c, b=READY, c=STARTED).on_probation


def test_what_is_skipped_is_not_waited_for_and_what_is_unwell_does_not_run_well() -> None:
    world = worlds.running(B, builders.service("c"), b=READY, c=ServicePhase.IDLE)
    skipped = worlds.change(world, "c", skipped="no such device")
    assert tell(skipped, NOTHING).world.on_probation
    probe = Health(kind=ProbeKind.TCP, port=1, failures=2, action=HealthAction.DEGRADE)
    spec = replace(worlds.state(skipped, "b").spec, health=probe)
    sick = worlds.change(skipped, "b", spec=spec, unhealthy=2)
    assert not tell(sick, NOTHING).world.on_probation


def test_an_essential_service_that_fails_ends_the_probation_and_a_new_one_begins() -> None:
    world = worlds.running(A, a=READY)
    failed = tell(world, ev.ServiceExited(ServiceName("a"), 1, Cause(CauseKind.CODE, 1)))
    assert fx.CancelTimer(memory.PROBATION) in failed.effects
    late = tell(failed.world, TimerFired(memory.PROBATION)).world
    assert not floors(late)
    again = tell(worlds.change(late, "a", phase=READY), NOTHING)
    assert again.effects == (fx.SetTimer(memory.PROBATION, 600.0),)


def test_neither_damage_nor_the_agents_end_is_running_well() -> None:
    world = worlds.running(A, a=READY)
    assert fx.CancelTimer(memory.PROBATION) in tell(world, ev.StopAsked()).effects
    assert world.active
    image = replace(world.images[world.active], damage=Problem(Code.VERITY, "a bad block"))
    damaged = memory.settle(replace(world, images={world.active: image}))
    assert damaged.effects == (fx.CancelTimer(memory.PROBATION),)


def test_what_was_reached_before_needs_no_probation() -> None:
    raised = tell(worlds.running(A, a=READY), TimerFired(memory.PROBATION)).world
    assert memory.settle(raised) == Step(raised)


def test_once_the_floor_is_raised_older_images_are_dropped_from_the_store() -> None:
    world = worlds.running(A, a=READY)
    assert world.active
    older = Image(stored=builders.stored(A, sequence=0), source=STICK.id)
    world = replace(world, images={**world.images, older.stored.digest: older})
    step = tell(world, TimerFired(memory.PROBATION))
    assert fx.DropImage(older.stored.digest) in step.effects
    assert set(step.world.images) == {world.active}


def asked(world: World, *, path: str = "/dev/sdb", kind: SourceKind = SourceKind.DEVICE) -> World:
    stick = builders.source(path, kind=kind)
    return tell(world, ev.SourceSeen(stick), ev.Probed(stick.id, builders.squashfs())).world


def test_the_helper_is_told_what_holds() -> None:
    world = remembering(Release(name="pkgs", sequence=42))
    step = tell(world, ev.SourceSeen(STICK), ev.Probed(STICK.id, builders.squashfs()))
    assert fx.Verify(STICK, world.bounds) in step.effects


def test_an_image_below_a_floor_that_rose_while_it_was_verified_is_refused_and_dropped() -> None:
    world = asked(remembering(Release(name="pkgs", sequence=42)))
    late = builders.stored(A, sequence=41)
    step = tell(world, ev.Verified(STICK.id, late))
    candidate = step.world.candidates[STICK.id]
    assert candidate.phase is CandidatePhase.REFUSED
    assert candidate.problem
    assert candidate.problem.code is Code.ROLLBACK
    assert step.effects == (fx.DropImage(late.digest),)
    assert not step.world.images


def test_such_an_image_stays_while_another_helper_may_vouch_for_the_same_bytes() -> None:
    world = asked(asked(remembering(Release(name="pkgs", sequence=42))), path="/dev/sdc")
    step = tell(world, ev.Verified(STICK.id, builders.stored(A, sequence=41)))
    assert step.effects == ()


def test_of_two_that_were_verified_at_once_with_one_sequence_the_first_is_kept() -> None:
    first, second = (builders.stored(A, digest=letter * 64) for letter in "ab")
    world = asked(asked(builders.world()), path="/dev/sdc")
    world = tell(world, ev.Verified(STICK.id, first)).world
    step = tell(world, ev.Verified(builders.source("/dev/sdc").id, second))
    problem = step.world.candidates[builders.source("/dev/sdc").id].problem
    assert problem
    assert problem.code is Code.EQUIVOCATION
    assert first.digest in problem.message
    assert second.digest in problem.message
    assert set(step.world.images) == {first.digest}
    assert fx.DropImage(second.digest) in step.effects


def test_what_is_in_use_or_was_stored_before_is_not_dropped_for_a_bad_manifest() -> None:
    good = builders.stored(A, sequence=2, digest="a" * 64)
    again = replace(good, manifest=replace(good.manifest, sequence=1))
    world = worlds.verified(good)
    raised = Memory(floors=(Release(name="pkgs", sequence=2, digest="a" * 64),))
    world = asked(replace(world, bounds=Bounds(memory=raised)), path="/dev/sdc")
    assert not tell(world, ev.Verified(builders.source("/dev/sdc").id, again)).effects
    world = asked(builders.world(bounds=Bounds(memory=raised)), path="/x", kind=SourceKind.STORED)
    assert not tell(world, ev.Verified(builders.source("/x").id, again)).effects


def test_an_accepted_image_is_remembered_at_once_and_once() -> None:
    image = builders.stored(A, sequence=7)
    step = memory.take_verified(builders.world(), image)
    release = Release(name="pkgs", sequence=7, digest=image.digest)
    assert step.effects == (fx.SaveMemory(Memory(accepted=(release,))), fx.SaveClock(ISSUED))
    assert not memory.take_verified(step.world, image).effects


def test_newer_keys_are_remembered_and_set_named_floors_anew() -> None:
    spoiled = Release(name="pkgs", sequence=2**60, digest="f" * 64)
    bounds = Bounds(memory=Memory(floors=(spoiled,)), baked=(Release(name="pkgs", sequence=3),))
    world = builders.world(bounds=bounds)
    assert Flag.FLOOR_IMPLAUSIBLE in memory.find_flags(world, builders.moment())
    image = replace(builders.stored(A, sequence=4), key_epoch=1)
    assert memory.is_outdated(world, replace(image, key_epoch=0))
    assert not memory.is_outdated(world, image)
    healed = memory.take_verified(world, image).world
    assert (floors(healed), healed.bounds.memory.key_epoch) == ([("pkgs", 3)], 1)
    assert Flag.FLOOR_IMPLAUSIBLE not in memory.find_flags(healed, builders.moment())


def test_a_memory_that_was_lost_is_written_down_as_lost_and_told() -> None:
    world = replace(remembering(lost=True), stale_memory=True)
    step = tell(world, ev.AgentStarted(("udev",)))
    assert fx.SaveMemory(Memory(lost=True)) in step.effects
    assert not step.world.stale_memory
    assert Flag.FLOOR_LOST in memory.find_flags(step.world, builders.moment())


def test_a_memory_whose_copies_agree_is_not_written_again() -> None:
    assert worlds.kinds(memory.begin(builders.world(), builders.moment())) == ["SetTimer"]


@pytest.mark.parametrize("retired", [True, False])
def test_an_image_of_a_retired_key_is_told(retired: bool) -> None:
    world = worlds.running(A, a=READY)
    assert world.active
    image = world.images[world.active]
    signed = replace(image, stored=replace(image.stored, retired=retired))
    world = replace(world, images={world.active: signed})
    assert (Flag.RETIRED_KEY in memory.find_flags(world, builders.moment())) is retired


def test_after_a_loss_the_floor_of_the_core_image_holds() -> None:
    baked = (Release(name="pkgs", sequence=42),)
    world = asked(builders.world(bounds=Bounds(memory=Memory(lost=True), baked=baked)))
    assert memory.floors(world) == baked
    step = tell(world, ev.Verified(STICK.id, builders.stored(A, sequence=41)))
    assert step.world.candidates[STICK.id].phase is CandidatePhase.REFUSED


def clocked(now: float, wall: float) -> Moment:
    return Moment(now=now, wall=wall)


def hourly(world: World, *moments: Moment) -> Step:
    step = Step(world)
    for moment in moments:
        step = step.then(engine.step, HOUR, moment)
    return step


def test_the_time_is_saved_every_hour() -> None:
    begun = memory.begin(builders.world(), clocked(10, ISSUED)).world
    step = hourly(begun, clocked(3610, ISSUED + 3600.5))
    again = fx.SetTimer(memory.CLOCK, 3600)
    assert step.effects == (again, fx.SaveClock(ISSUED + 3600.5))
    assert step.world.bounds.clock == ISSUED + 3600.5


@pytest.mark.parametrize("jump", [10 * 365 * DAY, 3600.0, -3600.0, -10 * 365 * DAY])
def test_a_clock_that_jumped_within_the_hour_is_not_believed_yet(jump: float) -> None:
    begun = memory.begin(builders.world(), clocked(0, ISSUED)).world
    jumped = hourly(begun, clocked(3600, ISSUED + 3600 + jump))
    assert worlds.kinds(jumped) == ["SetTimer"]
    back = hourly(jumped.world, clocked(7200, ISSUED + 7200))
    assert worlds.kinds(back) == ["SetTimer"]
    steady = hourly(back.world, clocked(10800, ISSUED + 10800))
    assert worlds.kinds(steady) == ["SetTimer", "SaveClock"]


@pytest.mark.parametrize(("slip", "believed"), [(60.0, True), (-60.0, True), (60.5, False)])
def test_a_small_correction_of_the_clock_is_believed(slip: float, believed: bool) -> None:
    begun = memory.begin(builders.world(), clocked(0, ISSUED)).world
    step = hourly(begun, clocked(3600, ISSUED + 3600 + slip))
    assert ("SaveClock" in worlds.kinds(step)) is believed


def test_a_clock_that_shows_the_earliest_possible_time_is_sure() -> None:
    world = builders.world(bounds=Bounds(clock=ISSUED))
    for wall, unsure in ((ISSUED - 0.5, True), (ISSUED, False)):
        assert (Flag.CLOCK_UNSURE in memory.find_flags(world, clocked(0, wall))) is unsure


def test_a_clock_in_the_past_never_lowers_the_time() -> None:
    world = builders.world(bounds=Bounds(clock=ISSUED))
    begun = memory.begin(world, clocked(0, 0.0)).world
    step = hourly(begun, clocked(3600, 3600.0))
    assert worlds.kinds(step) == ["SetTimer"]
    assert memory.find_flags(step.world, clocked(3600, 3600.0))[-1] is Flag.CLOCK_UNSURE


def test_an_expired_image_runs_on_and_is_called_stale() -> None:
    world = worlds.running(A, a=READY)
    assert world.active
    image = world.images[world.active]
    manifest = replace(image.stored.manifest, expires="2026-02-01T00:00:00Z")
    stale = replace(image, stored=replace(image.stored, manifest=manifest))
    world = replace(world, images={world.active: stale})
    for wall, flagged in ((ISSUED + 31 * DAY, False), (ISSUED + 31 * DAY + 1, True)):
        assert (Flag.STALE in memory.find_flags(world, clocked(0, wall))) is flagged
    step = engine.step(world, NOTHING, clocked(0, ISSUED + 40 * DAY))
    assert step.world.services == world.services
    assert step.world.active == world.active


def test_no_jump_of_the_clock_gives_any_order() -> None:
    world = worlds.running(A, a=READY)
    for wall in (0.0, ISSUED, ISSUED + 10 * 365 * DAY, ISSUED - 10 * 365 * DAY, -1.0):
        assert engine.step(world, NOTHING, clocked(5, wall)) == Step(world)


def test_flags_say_whether_the_floor_can_be_forged() -> None:
    world = builders.world()
    assert memory.find_flags(world, builders.moment()) == (Flag.FLOOR_OPEN,)
    assert memory.find_flags(replace(world, sealed=True), builders.moment()) == ()


def test_of_a_pinned_image_nothing_is_remembered_and_no_floor_refuses_it() -> None:
    pinned = replace(builders.stored(A), pinned=True)
    world = remembering(Release(name="pkgs", sequence=9))
    step = tell(worlds.verified(pinned, world), NOTHING)
    assert step.world.bounds == world.bounds
    assert step.world.active == pinned.digest
    ready = worlds.change(tell(step.world, worlds.mounted(pinned)).world, "a", phase=READY)
    assert not tell(ready, NOTHING).world.on_probation
    revoked = replace(world.bounds, revoked=frozenset({pinned.digest}))
    gone = worlds.verified(pinned, replace(world, bounds=revoked))
    assert gone.images == {}
