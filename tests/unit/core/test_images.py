"""Which image is active, and how it gets in and out."""

from dataclasses import replace

import pytest

from extsloader.core import floor, images
from extsloader.core.step import Step
from extsloader.model import effects as fx
from extsloader.model.errors import IllegalTransitionError
from extsloader.model.events import TimerId, TimerKind
from extsloader.model.ids import SourceId
from extsloader.model.machine import Machine
from extsloader.model.manifest import StoredImage
from extsloader.model.reasons import Code, Problem
from extsloader.model.settings import Settings
from extsloader.model.trust import Bounds, Memory
from extsloader.model.world import Candidate, CandidatePhase, Image, ImagePhase, ServicePhase, World
from tests.fakes import builders, worlds

PLACE = SourceId("/dev/sdb", "1")
OLD, MID, NEW = (builders.stored(builders.service("a"), sequence=n) for n in (1, 2, 3))
CHOOSE = TimerId(TimerKind.CHOOSE)
BAD = Problem(Code.IMAGE_FS, "cannot mount it: bad superblock")
DAMAGE = Problem(Code.VERITY, "cannot trust it: a bad block")
WITH_VERITY = Machine(arch="amd64", no_verity="")


def holding(*stored: StoredImage, phase: ImagePhase = ImagePhase.STORED, **fields: object) -> World:
    found = {i.digest: Image(stored=i, source=PLACE, phase=phase) for i in stored}
    return builders.world(images=found, **fields)


def undecided(world: World) -> World:
    source = builders.source("/dev/sdc")
    return replace(world, candidates={source.id: Candidate(source=source)})


def test_an_image_is_known_once_however_many_sticks_hold_it() -> None:
    step = images.add(builders.world(), PLACE, OLD)
    again = images.add(step.world, SourceId("/dev/sdc", "1"), OLD)
    assert again.world is step.world
    assert again.world.images[OLD.digest].source == PLACE


def test_of_two_manifests_for_the_same_bytes_the_higher_sequence_counts() -> None:
    older, newer = (
        builders.stored(builders.service("a"), sequence=number, digest="e" * 64)
        for number in (1, 2)
    )
    first = images.add(builders.world(), PLACE, older).world
    assert images.add(first, PLACE, newer).world.images[newer.digest].stored == newer
    second = images.add(builders.world(), PLACE, newer).world
    assert images.add(second, PLACE, older).world is second

    in_use = holding(older, phase=ImagePhase.MOUNTED, active=older.digest)
    assert images.add(in_use, PLACE, newer).world is in_use


def test_the_store_keeps_the_active_image_and_the_best_of_the_rest() -> None:
    world = holding(OLD, MID, NEW)
    active = replace(world.images[OLD.digest], phase=ImagePhase.MOUNTED)
    world = replace(world, images={**world.images, OLD.digest: active}, active=OLD.digest)
    step = images.drop_surplus(world)
    assert set(step.world.images) == {OLD.digest, NEW.digest}
    assert step.effects == (fx.DropImage(MID.digest),)
    assert images.drop_surplus(step.world).world is step.world


def test_a_worse_newcomer_does_not_push_a_better_one_out() -> None:
    step = images.drop_surplus(images.add(holding(MID, NEW), PLACE, OLD).world)
    assert set(step.world.images) == {MID.digest, NEW.digest}


def test_the_image_that_ran_well_stays_until_a_newer_one_has() -> None:
    ran_well = Memory(floors=(floor.release_of(OLD.manifest),))
    world = holding(OLD, MID, NEW, bounds=Bounds(memory=ran_well))
    active = replace(world.images[MID.digest], phase=ImagePhase.MOUNTED)
    world = replace(world, images={**world.images, MID.digest: active}, active=MID.digest)
    assert set(images.drop_surplus(world).world.images) == {OLD.digest, MID.digest}


def test_what_could_not_be_mounted_goes_first() -> None:
    world = holding(NEW, phase=ImagePhase.BROKEN)
    world = replace(world, images={**world.images, **holding(OLD, MID).images})
    assert set(images.drop_surplus(world).world.images) == {OLD.digest, MID.digest}


def test_nothing_is_dropped_while_a_choice_or_a_verdict_is_due() -> None:
    choosing = holding(OLD, MID, NEW, choosing=True)
    assert images.drop_surplus(choosing).world is choosing
    source = builders.source("/dev/sdc")
    busy = {source.id: Candidate(source=source, phase=CandidatePhase.VERIFYING)}
    verifying = replace(choosing, choosing=False, candidates=busy)
    assert images.drop_surplus(verifying).world is verifying


def test_h074_the_highest_sequence_is_chosen() -> None:
    step = images.choose(holding(OLD, NEW, MID))
    assert step.world.active == NEW.digest
    assert not step.effects


def test_h074_of_equals_the_first_is_chosen() -> None:
    twin = builders.stored(builders.service("b"), sequence=3, digest="e" * 64)
    assert images.choose(holding(NEW, twin)).world.active == NEW.digest


@pytest.mark.parametrize(
    "world",
    [
        builders.world(),
        holding(OLD, NEW, active=OLD.digest),
        holding(OLD, stopping=True),
        holding(OLD, phase=ImagePhase.BROKEN),
    ],
    ids=["none", "active already", "stopping", "broken"],
)
def test_there_is_not_always_something_to_choose(world: World) -> None:
    assert images.choose(world) == Step(world)


def test_the_choice_waits_a_little_for_other_verdicts() -> None:
    waiting = images.choose(undecided(holding(OLD)))
    assert waiting.effects == (fx.SetTimer(CHOOSE, 2.0),)
    assert waiting.world.active is None
    assert images.choose(waiting.world) == Step(waiting.world)
    overdue = images.end_waiting(waiting.world).world
    chosen = images.choose(overdue)
    assert chosen.world.active == OLD.digest
    assert chosen.effects == (fx.CancelTimer(CHOOSE),)
    assert not chosen.world.choosing
    assert not chosen.world.overdue


def test_a_timer_that_nobody_waits_for_changes_nothing() -> None:
    world = holding(OLD)
    assert images.end_waiting(world).world is world


def test_the_active_image_is_mounted() -> None:
    step = images.move(holding(OLD, NEW, active=NEW.digest))
    assert step.effects == (fx.MountImage(NEW),)
    assert step.world.images[NEW.digest].phase is ImagePhase.MOUNTING
    assert step.world.images[OLD.digest].phase is ImagePhase.STORED


@pytest.mark.parametrize("phase", [ImagePhase.MOUNTING, ImagePhase.UNMOUNTING, ImagePhase.BROKEN])
@pytest.mark.parametrize("stopping", [True, False])
def test_an_image_that_moves_or_broke_gets_no_order(phase: ImagePhase, *, stopping: bool) -> None:
    world = holding(OLD, phase=phase, active=OLD.digest, stopping=stopping)
    assert images.move(world) == Step(world)


def test_an_image_is_unmounted_only_when_no_service_is_left() -> None:
    world = replace(worlds.running(builders.service("a"), a=ServicePhase.FINISHED), stopping=True)
    assert images.move(world) == Step(world)
    idle = worlds.change(world, "a", phase=ServicePhase.IDLE)
    digest = next(iter(world.images))
    assert images.move(idle).effects == (fx.UnmountImage(digest),)


def test_a_mounted_image_that_is_wanted_stays() -> None:
    world = holding(OLD, phase=ImagePhase.MOUNTED, active=OLD.digest)
    assert images.move(world) == Step(world)


def test_a_mounted_image_is_known_to_be_mounted() -> None:
    step = images.take_mounted(holding(OLD, phase=ImagePhase.MOUNTING), OLD.digest)
    assert step.world.images[OLD.digest].phase is ImagePhase.MOUNTED


def test_an_image_that_cannot_be_mounted_gives_way() -> None:
    world = holding(OLD, phase=ImagePhase.MOUNTING, active=OLD.digest)
    step = images.take_failed(world, OLD.digest, BAD, builders.moment())
    assert step.world.active is None
    assert step.world.images[OLD.digest].problem == BAD
    assert images.choose(step.world).world.active is None


def test_an_image_that_cannot_be_mounted_is_tried_again_after_longer_and_longer_pauses() -> None:
    world, pauses = holding(OLD), []
    for _ in range(9):
        chosen = images.choose(world).then(images.move).world
        failed = images.take_failed(chosen, OLD.digest, BAD, builders.moment())
        (timer,) = failed.effects
        assert isinstance(timer, fx.SetTimer)
        assert timer.timer == TimerId(TimerKind.MOUNT, OLD.digest)
        pauses.append(timer.delay)
        world = images.end_pause(failed.world, OLD.digest).world
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    mounting = images.choose(world).then(images.move).world
    mounted = images.take_mounted(mounting, OLD.digest).world.images[OLD.digest]
    assert (mounted.problem, mounted.failures) == (None, 0)


@pytest.mark.parametrize("world", [
    builders.world(),
    holding(OLD),
    holding(OLD, phase=ImagePhase.BROKEN, stopping=True),
], ids=["gone", "not broken", "stopping"])  # fmt: skip
def test_a_pause_may_end_for_nothing(world: World) -> None:
    assert images.end_pause(world, OLD.digest) == Step(world)


def test_an_agent_that_stops_does_not_try_again() -> None:
    world = holding(OLD, phase=ImagePhase.MOUNTING, stopping=True)
    assert not images.take_failed(world, OLD.digest, BAD, builders.moment()).effects


@pytest.mark.parametrize("problem", [None, BAD])
def test_after_an_unmount_no_service_is_known(problem: Problem | None) -> None:
    world = worlds.running(builders.service("a"))
    digest = next(iter(world.images))
    image = replace(world.images[digest], phase=ImagePhase.UNMOUNTING)
    step = images.take_unmounted(replace(world, images={digest: image}), digest, problem)
    assert not step.world.services
    assert step.world.images[digest].phase is ImagePhase.STORED
    assert step.world.leftovers == ({digest: problem} if problem else {})


def test_reports_about_images_that_do_not_move_are_our_bug() -> None:
    world = holding(OLD)
    with pytest.raises(IllegalTransitionError, match="an image that is stored cannot be mounted"):
        images.take_mounted(world, OLD.digest)
    with pytest.raises(IllegalTransitionError, match="an image that is stored cannot be unmounted"):
        images.take_unmounted(world, OLD.digest, None)
    with pytest.raises(IllegalTransitionError, match="is not known cannot be failed"):
        images.take_failed(world, NEW.digest, BAD, builders.moment())


def watched(**fields: object) -> World:
    """An image is mounted under dm-verity, and the first answer about it has come."""
    world = holding(OLD, phase=ImagePhase.MOUNTED, active=OLD.digest, machine=WITH_VERITY)
    image = replace(world.images[OLD.digest], **fields)  # type: ignore[arg-type]
    return replace(world, images={OLD.digest: image})


def test_with_dm_verity_an_image_is_mounted_through_it_and_looked_at() -> None:
    world = holding(OLD, active=OLD.digest, machine=WITH_VERITY)
    assert images.move(world).effects == (fx.MountImage(OLD, verity=True),)
    mounting = holding(OLD, phase=ImagePhase.MOUNTING, active=OLD.digest, machine=WITH_VERITY)
    assert images.take_mounted(mounting, OLD.digest).effects == (fx.CheckImage(OLD.digest),)


def test_a_good_answer_is_asked_for_again_later() -> None:
    asked = images.check(watched())
    assert asked.effects == (fx.CheckImage(OLD.digest),)
    answered = images.take_checked(asked.world, OLD.digest, None)
    assert answered == Step(watched(), (fx.SetTimer(images.CHECK, images.CHECK_PERIOD),))


@pytest.mark.parametrize(
    "world",
    [
        builders.world(machine=WITH_VERITY),
        watched(checking=True),
        watched(damage=DAMAGE),
        watched(phase=ImagePhase.UNMOUNTING),
        replace(watched(), stopping=True),
        replace(watched(), settings=Settings(integrity="store")),
    ],
    ids=["no image", "asked already", "known", "unmounting", "stopping", "store"],
)
def test_there_is_not_always_something_to_ask(world: World) -> None:
    assert images.check(world) == Step(world)


def test_damage_is_kept_in_mind_and_not_asked_about_again() -> None:
    step = images.take_checked(watched(checking=True), OLD.digest, DAMAGE)
    assert step == Step(watched(damage=DAMAGE))


def test_an_answer_that_could_not_be_had_is_no_damage() -> None:
    step = images.take_checked(watched(checking=True), OLD.digest, BAD)
    assert step.world.images == watched().images
    assert step.world.problems == (BAD,)
    assert step.effects == (fx.SetTimer(images.CHECK, images.CHECK_PERIOD),)


def test_an_agent_that_stops_asks_no_more_but_waits_for_the_answer() -> None:
    world = replace(watched(checking=True), stopping=True)
    assert images.move(world) == Step(world)
    answered = images.take_checked(world, OLD.digest, None)
    assert answered.effects == ()
    assert images.move(answered.world).effects == (fx.UnmountImage(OLD.digest),)


def test_a_damaged_image_is_dropped_with_its_mount_and_forgotten() -> None:
    step = images.move(replace(watched(damage=DAMAGE), stopping=True))
    assert step.effects == (fx.UnmountImage(OLD.digest, drop=True),)
    assert images.take_unmounted(step.world, OLD.digest, None).world.images == {}


def test_its_file_stays_while_a_helper_may_vouch_for_the_same_bytes() -> None:
    stick = builders.source("/dev/sdb")
    verifying = Candidate(source=stick, phase=CandidatePhase.VERIFYING)
    world = replace(watched(damage=DAMAGE), stopping=True, candidates={stick.id: verifying})
    assert images.move(world).effects == (fx.UnmountImage(OLD.digest),)


def test_nobody_is_told_what_he_did_not_ask() -> None:
    with pytest.raises(IllegalTransitionError, match="nobody asked about"):
        images.take_checked(watched(), OLD.digest, None)
    with pytest.raises(IllegalTransitionError, match="nobody asked about"):
        images.take_checked(watched(), NEW.digest, None)


def test_nothing_is_wanted_of_an_agent_that_stops() -> None:
    assert images.is_wanted(holding(OLD, active=OLD.digest), OLD.digest)
    assert not images.is_wanted(holding(OLD, active=OLD.digest, stopping=True), OLD.digest)
    assert not images.is_wanted(holding(OLD), OLD.digest)
    assert not images.is_wanted(holding(OLD), None)
