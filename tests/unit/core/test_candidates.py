"""The way of a source to its verdict, one decision at a time."""

from dataclasses import replace

import pytest

from extsloader.core import candidates
from extsloader.core.step import Step
from extsloader.model import effects as fx
from extsloader.model.errors import IllegalTransitionError
from extsloader.model.events import TimerId, TimerKind
from extsloader.model.ids import Digest, SourceId
from extsloader.model.reasons import Code, Problem
from extsloader.model.settings import Limits, Settings, Timeouts
from extsloader.model.source import FsType, SourceKind, Superblock
from extsloader.model.world import Candidate, CandidatePhase, World
from tests.fakes import builders, worlds

STICK = builders.source("/dev/sdb", "1")
NOW = builders.moment(1000)
OTHER_PLACE = builders.source("/dev/sdc")
FRESH = Candidate(source=STICK, looks=(1000,))
OTHER = builders.source("/dev/sdb", "2")
PASSING = Problem(Code.IO, "cannot read /dev/sdb: input/output error")
FINAL = Problem(Code.SIGNATURE, "cannot trust /dev/sdb")


def with_stick(phase: CandidatePhase, **fields: object) -> World:
    candidate = replace(Candidate(source=STICK, phase=phase), **fields)  # type: ignore[arg-type]
    return builders.world(candidates={STICK.id: candidate})


def stick(world: World) -> Candidate:
    return world.candidates[STICK.id]


def test_a_new_stick_waits_for_a_helper() -> None:
    step = candidates.see(builders.world(), STICK, NOW)
    assert stick(step.world) == FRESH
    assert not step.effects


def test_a_stick_that_the_filters_leave_out_is_ignored_unread() -> None:
    empty = replace(STICK, size=0)
    world = candidates.see(builders.world(), empty, NOW).world
    assert stick(world).phase is CandidatePhase.IGNORED
    assert candidates.start_helpers(world).effects == ()


def test_the_same_stick_seen_again_changes_nothing() -> None:
    world = with_stick(CandidatePhase.VERIFIED)
    assert candidates.see(world, STICK, NOW) == Step(world)


def test_a_medium_in_a_card_reader_that_was_empty_is_looked_at() -> None:
    world = candidates.see(builders.world(), replace(STICK, size=0), NOW).world
    assert stick(candidates.see(world, STICK, NOW).world).phase is CandidatePhase.NEW


def test_a_source_that_changes_under_its_helper_is_looked_at_again() -> None:
    grown = replace(STICK, size=2 * STICK.size)
    step = candidates.see(with_stick(CandidatePhase.VERIFYING), grown, NOW)
    assert step.effects == (fx.CancelHelper(STICK.id),)
    assert stick(step.world).called_off
    ended = candidates.refuse(step.world, STICK.id, PASSING, NOW).world
    assert stick(ended) == replace(FRESH, source=grown)


def test_another_stick_in_the_same_place_calls_the_helper_off() -> None:
    step = candidates.see(with_stick(CandidatePhase.PROBING), OTHER, NOW)
    assert step.effects == (fx.CancelHelper(STICK.id),)
    assert not stick(step.world).present
    assert step.world.candidates[OTHER.id].present


def test_a_file_of_our_store_that_was_verified_in_this_life_is_left_alone() -> None:
    image = builders.stored(builders.service("a"))
    world = worlds.verified(image)
    source = builders.source(image.path, kind=SourceKind.STORED)
    assert candidates.see(world, source, NOW).world is world


def test_a_file_of_the_store_that_is_not_known_is_looked_at() -> None:
    source = builders.source("/store/f.img", kind=SourceKind.STORED)
    assert source.id in candidates.see(builders.world(), source, NOW).world.candidates


@pytest.mark.parametrize("phase", sorted(candidates.IN_HELPER))
def test_a_stick_that_is_pulled_is_gone_and_its_helper_called_off_once(
    phase: CandidatePhase,
) -> None:
    step = candidates.lose(with_stick(phase), STICK.id.path)
    assert step.effects == (fx.CancelHelper(STICK.id),)
    assert stick(step.world).phase is phase
    assert candidates.lose(step.world, STICK.id.path).effects == ()


def test_a_verdict_outlives_its_stick() -> None:
    step = candidates.lose(with_stick(CandidatePhase.REFUSED, problem=FINAL), STICK.id.path)
    assert stick(step.world).problem == FINAL
    assert not stick(step.world).present
    assert not step.effects


def test_a_stick_that_comes_back_after_its_verdict_is_read_anew() -> None:
    world = with_stick(CandidatePhase.REFUSED, problem=FINAL, present=False, tries=5)
    assert stick(candidates.see(world, STICK, NOW).world) == FRESH


def test_a_place_where_media_change_all_the_time_has_to_wait() -> None:
    world = builders.world()
    for number in range(candidates.LOOKS):
        seen = candidates.see(
            world, builders.source("/dev/sdb", f"{number}"), builders.moment(number)
        )
        assert not seen.effects
        world = seen.world
    early = builders.moment(candidates.LOOKS)
    waiting = candidates.see(world, replace(STICK, id=SourceId("/dev/sdb", "last")), early)
    last = SourceId("/dev/sdb", "last")
    pause = candidates.LOOKS_WITHIN - candidates.LOOKS
    assert waiting.effects == (fx.SetTimer(TimerId(TimerKind.RETRY, last), pause),)
    found = waiting.world.candidates[last]
    assert found.problem is not None
    assert (found.phase, found.problem.code) == (CandidatePhase.RETRYING, Code.LIMIT)
    assert candidates.see(waiting.world, OTHER_PLACE, early).effects == ()

    again = candidates.see(candidates.lose(waiting.world, "/dev/sdb").world, STICK, early)
    assert again.effects == (fx.SetTimer(TimerId(TimerKind.RETRY, STICK.id), pause),)
    later = candidates.retry(again.world, STICK.id).world
    assert stick(later).phase is CandidatePhase.NEW


def test_the_same_medium_that_comes_and_goes_waits_as_well() -> None:
    world = builders.world()
    for _ in range(candidates.LOOKS + 1):
        world = candidates.see(candidates.lose(world, STICK.id.path).world, STICK, NOW).world
    assert stick(world).phase is CandidatePhase.RETRYING
    calm = builders.moment(NOW.now + candidates.LOOKS_WITHIN)
    back = candidates.see(candidates.lose(world, STICK.id.path).world, STICK, calm).world
    assert stick(back).phase is CandidatePhase.NEW


def test_a_stick_that_is_back_before_its_helper_has_ended_gets_no_second_helper() -> None:
    world = candidates.lose(with_stick(CandidatePhase.PROBING), STICK.id.path).world
    back = candidates.see(world, STICK, NOW).world
    assert stick(back).present
    assert candidates.start_helpers(back).effects == ()
    assert candidates.lose(back, STICK.id.path).effects == ()


def test_what_a_helper_says_about_an_earlier_visit_counts_for_nothing() -> None:
    image = builders.stored(builders.service("a"))
    probing = with_stick(CandidatePhase.PROBING, called_off=True)
    verifying = with_stick(CandidatePhase.VERIFYING, called_off=True)
    for step in (
        candidates.take_superblock(probing, STICK.id, builders.squashfs(), NOW),
        candidates.refuse(probing, STICK.id, FINAL, NOW),
        candidates.accept(verifying, STICK.id, image, NOW),
    ):
        assert stick(step.world) == FRESH


def test_old_verdicts_are_dropped_in_the_end_but_not_from_under_a_helper() -> None:
    world = with_stick(CandidatePhase.PROBING)
    world = candidates.lose(world, STICK.id.path).world
    for number in range(candidates.REMEMBERED + 3):
        world = candidates.see(world, builders.source("/dev/sdc", f"{number}"), NOW).world
    world = candidates.lose(world, "/dev/sdc").world
    assert len(world.candidates) == candidates.REMEMBERED + 1
    assert STICK.id in world.candidates
    assert SourceId("/dev/sdc", "2") not in world.candidates


def test_a_listing_is_the_truth_of_its_provider_only() -> None:
    file = builders.source("/data/a.img", kind=SourceKind.FILE)
    world = candidates.see(with_stick(CandidatePhase.VERIFIED), file, NOW).world
    world = replace(world, awaited=frozenset({"udev", "files"}))
    new = builders.source("/dev/sdc")
    step = candidates.take_listing(world, "udev", (new,), NOW)
    present = {id_.path: c.present for id_, c in step.world.candidates.items()}
    assert present == {"/dev/sdb": False, "/data/a.img": True, "/dev/sdc": True}
    assert step.world.awaited == {"files"}


@pytest.mark.parametrize(
    ("superblock", "phase"),
    [
        (builders.squashfs(), CandidatePhase.QUEUED),
        (Superblock(fs_type=FsType.NTFS), CandidatePhase.IGNORED),
    ],
)
def test_the_superblock_decides_what_is_worth_verifying(
    superblock: Superblock, phase: CandidatePhase
) -> None:
    step = candidates.take_superblock(with_stick(CandidatePhase.PROBING), STICK.id, superblock, NOW)
    assert stick(step.world).phase is phase


def test_progress_is_kept_while_a_helper_copies() -> None:
    world = candidates.take_progress(with_stick(CandidatePhase.VERIFYING), STICK.id, 3, 9).world
    assert (stick(world).done, stick(world).total) == (3, 9)


def test_progress_that_comes_late_changes_nothing() -> None:
    world = with_stick(CandidatePhase.REFUSED)
    assert candidates.take_progress(world, STICK.id, 3, 9).world is world
    assert candidates.take_progress(world, OTHER.id, 3, 9).world is world


def test_a_verified_stick_names_its_image() -> None:
    image = builders.stored(builders.service("a"))
    step = candidates.accept(with_stick(CandidatePhase.VERIFYING), STICK.id, image, NOW)
    assert stick(step.world).phase is CandidatePhase.VERIFIED
    assert stick(step.world).digest == image.digest


@pytest.mark.parametrize("found", [CandidatePhase.NEW, CandidatePhase.REFUSED])
def test_reports_about_work_that_nobody_does_are_our_bug(found: CandidatePhase) -> None:
    world = with_stick(found)
    with pytest.raises(IllegalTransitionError, match=f"is {found}, a report expects verifying"):
        candidates.accept(world, STICK.id, builders.stored(), NOW)
    with pytest.raises(IllegalTransitionError, match="is unknown, a report expects probing"):
        candidates.take_superblock(world, OTHER.id, builders.squashfs(), NOW)
    for source in (STICK, OTHER):
        with pytest.raises(IllegalTransitionError, match="no helper works"):
            candidates.refuse(world, source.id, FINAL, builders.moment())


def test_a_passing_fault_is_tried_again_after_a_pause() -> None:
    world = with_stick(CandidatePhase.VERIFYING, tries=2)
    step = candidates.refuse(world, STICK.id, PASSING, builders.moment(100, dice=1))
    assert stick(step.world).phase is CandidatePhase.RETRYING
    assert step.effects == (fx.SetTimer(TimerId(TimerKind.RETRY, STICK.id), 2),)
    assert stick(candidates.retry(step.world, STICK.id).world).phase is CandidatePhase.NEW


@pytest.mark.parametrize(
    ("world", "problem", "code"),
    [
        (with_stick(CandidatePhase.PROBING), FINAL, Code.SIGNATURE),
        (with_stick(CandidatePhase.PROBING, tries=4), PASSING, Code.IO),
        (with_stick(CandidatePhase.PROBING, present=False), PASSING, Code.GONE),
        (replace(with_stick(CandidatePhase.PROBING), stopping=True), PASSING, Code.IO),
    ],
    ids=["final", "too often", "gone", "stopping"],
)
def test_some_refusals_are_final(world: World, problem: Problem, code: Code) -> None:
    step = candidates.refuse(world, STICK.id, problem, builders.moment())
    found = stick(step.world)
    assert found.phase is CandidatePhase.REFUSED
    assert found.problem is not None
    assert found.problem.code is code
    assert not step.effects


def test_a_stick_that_was_pulled_during_the_pause_is_not_tried_again() -> None:
    world = with_stick(CandidatePhase.RETRYING, present=False)
    assert stick(candidates.retry(world, STICK.id).world).phase is CandidatePhase.REFUSED


def test_the_end_of_a_pause_that_nobody_makes_changes_nothing() -> None:
    world = with_stick(CandidatePhase.PROBING)
    assert candidates.retry(world, STICK.id).world is world
    assert candidates.retry(world, OTHER.id).world is world


def test_helpers_are_few_and_verify_before_they_probe() -> None:
    world = builders.world()
    for path in ("/dev/sdc", "/dev/sdd", "/dev/sde"):
        world = candidates.see(world, builders.source(path), NOW).world
    queued = Candidate(source=STICK, phase=CandidatePhase.QUEUED)
    world = replace(world, candidates={**world.candidates, STICK.id: queued})
    step = candidates.start_helpers(world)
    assert step.effects == (fx.Verify(STICK), fx.Probe(builders.source("/dev/sdc")))
    assert len(candidates.at_work(step.world)) == 2


def test_a_stick_that_was_pulled_while_it_waited_needs_no_helper() -> None:
    busy = replace(
        with_stick(CandidatePhase.QUEUED, present=False),
        settings=Settings(limits=Limits(parallel_helpers=0)),
    )
    step = candidates.start_helpers(busy)
    assert stick(step.world).phase is CandidatePhase.REFUSED
    assert not step.effects


@pytest.mark.parametrize(
    "world",
    [
        replace(with_stick(CandidatePhase.NEW), stopping=True),
        replace(with_stick(CandidatePhase.NEW), settings=Settings(enabled=False)),
    ],
    ids=["stopping", "switched off"],
)
def test_no_helper_starts_when_none_is_wanted(world: World) -> None:
    assert candidates.start_helpers(world) == Step(world)


def test_helpers_at_work_are_called_off_together() -> None:
    assert candidates.cancel_helpers(with_stick(CandidatePhase.PROBING)) == (
        fx.CancelHelper(STICK.id),
    )
    assert candidates.cancel_helpers(with_stick(CandidatePhase.NEW)) == ()


@pytest.mark.parametrize(
    ("world", "undecided"),
    [
        (with_stick(CandidatePhase.VERIFYING), True),
        (with_stick(CandidatePhase.VERIFYING, present=False), False),
        (with_stick(CandidatePhase.RETRYING), False),
        (builders.world(awaited=frozenset({"udev"})), True),
        (builders.world(), False),
    ],
)
def test_a_verdict_is_awaited_for_what_is_there(world: World, *, undecided: bool) -> None:
    assert candidates.is_undecided(world) is undecided


def test_pauses_are_capped() -> None:
    timeouts = Timeouts(retry_base=1, retry_cap=5, retry_limit=99)
    world = replace(
        with_stick(CandidatePhase.PROBING, tries=50), settings=Settings(timeouts=timeouts)
    )
    step = candidates.refuse(world, STICK.id, PASSING, builders.moment())
    assert step.effects == (fx.SetTimer(TimerId(TimerKind.RETRY, STICK.id), 5),)


ROTTEN = Problem(Code.DIGEST, "cannot accept the image")
DIGEST = Digest("ab" * 32)


def refuse_stored(
    name: str, problem: Problem = ROTTEN, kind: SourceKind = SourceKind.STORED
) -> Step:
    stored = replace(STICK, id=SourceId(f"/store/{name}", "1"), kind=kind)
    candidate = Candidate(source=stored, phase=CandidatePhase.VERIFYING)
    world = builders.world(candidates={stored.id: candidate})
    step = candidates.refuse(world, stored.id, problem, builders.moment())
    return step.then(candidates.drop_rotten)


def test_a_rotten_file_of_the_store_is_deleted_and_its_verdict_stays() -> None:
    step = refuse_stored(f"{DIGEST}.img")
    assert step.effects == (fx.DropImage(DIGEST),)
    (candidate,) = step.world.candidates.values()
    assert (candidate.phase, candidate.problem) == (CandidatePhase.REFUSED, ROTTEN)
    assert candidates.drop_rotten(step.world) == Step(step.world), "once is enough"


@pytest.mark.parametrize("name", ["notes.txt", "x.img", f"{DIGEST}.img.new", f"{'AB' * 32}.img"])
def test_a_file_in_the_store_that_we_did_not_name_is_left_alone(name: str) -> None:
    assert refuse_stored(name).effects == ()


def test_a_stored_image_that_is_refused_for_another_reason_is_kept() -> None:
    assert refuse_stored(f"{DIGEST}.img", FINAL).effects == ()


def test_a_rotten_file_outside_the_store_is_not_ours_to_delete() -> None:
    assert refuse_stored(f"{DIGEST}.img", kind=SourceKind.FILE).effects == ()


def test_a_rotten_file_stays_while_a_helper_may_be_replacing_it() -> None:
    stored = replace(STICK, id=SourceId(f"/store/{DIGEST}.img", "1"), kind=SourceKind.STORED)
    both = {s.id: Candidate(source=s, phase=CandidatePhase.VERIFYING) for s in (stored, STICK)}
    step = candidates.refuse(builders.world(candidates=both), stored.id, ROTTEN, builders.moment())
    assert step.then(candidates.drop_rotten).effects == ()

    step = candidates.refuse(step.world, STICK.id, FINAL, builders.moment())
    assert step.then(candidates.drop_rotten).effects == (fx.DropImage(DIGEST),)


def test_a_rotten_file_stays_when_its_image_is_known_by_now() -> None:
    known = builders.stored(digest=DIGEST)
    stored = replace(STICK, id=SourceId(known.path, "1"), kind=SourceKind.STORED)
    world = worlds.verified(known)
    rotting = Candidate(source=stored, phase=CandidatePhase.VERIFYING)
    world = replace(world, candidates={**world.candidates, stored.id: rotting})
    assert DIGEST in world.images
    step = candidates.refuse(world, stored.id, ROTTEN, builders.moment())
    assert step.then(candidates.drop_rotten).effects == ()
