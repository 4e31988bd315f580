"""The journal's lines about a step."""

from dataclasses import replace

from extsloader.core.changes import find_changes
from extsloader.model.reasons import Code, Problem
from extsloader.model.status import AgentState, Change
from extsloader.model.world import (
    Candidate,
    CandidatePhase,
    Image,
    ImagePhase,
    ServicePhase,
    World,
)
from tests.fakes import builders, worlds

STICK = builders.source()
IMAGE = builders.stored(builders.service("a"))
NO = Problem(Code.SIGNATURE, "cannot trust it", "sign it")


def lines(old: World, new: World) -> list[str]:
    changes = find_changes(old, new, builders.moment())
    return [f"{c.subject}: {c.old} -> {c.new}" for c in changes]


def with_stick(phase: CandidatePhase, *, present: bool = True, done: int = 0) -> World:
    candidate = Candidate(source=STICK, phase=phase, present=present, done=done)
    return builders.world(candidates={STICK.id: candidate})


def with_image(phase: ImagePhase) -> World:
    return builders.world(images={IMAGE.digest: Image(stored=IMAGE, source=STICK.id, phase=phase)})


def test_damage_is_told_with_its_reason_and_once() -> None:
    good = with_image(ImagePhase.MOUNTED)
    bad = builders.world(images={IMAGE.digest: replace(good.images[IMAGE.digest], damage=NO)})
    (change,) = find_changes(good, bad, builders.moment())
    assert (change.old, change.new, change.code) == ("mounted", "damaged", NO.code)
    assert lines(bad, replace(bad, images=dict(bad.images))) == []


def test_nothing_is_said_when_nothing_changed() -> None:
    world = worlds.running(builders.service("a"))
    assert lines(world, world) == []
    assert lines(world, replace(world, candidates=dict(world.candidates))) == []
    assert lines(world, replace(world, services=dict(world.services))) == []


def test_a_new_candidate_was_unknown() -> None:
    assert lines(builders.world(), with_stick(CandidatePhase.PROBING)) == [
        "candidate /dev/sdb: unknown -> probing"
    ]


def test_a_pulled_stick_is_told_apart_from_one_that_is_there() -> None:
    old = with_stick(CandidatePhase.REFUSED)
    new = with_stick(CandidatePhase.REFUSED, present=False)
    assert lines(old, new) == ["candidate /dev/sdb: refused -> refused, gone"]


def test_progress_alone_is_no_news() -> None:
    old = with_stick(CandidatePhase.VERIFYING)
    assert lines(old, with_stick(CandidatePhase.VERIFYING, done=9)) == []


def test_images_are_named_by_their_digest() -> None:
    subject = f"image {'d' * 12}"
    assert lines(builders.world(), with_image(ImagePhase.STORED)) == [
        f"{subject}: unknown -> stored"
    ]
    assert lines(with_image(ImagePhase.STORED), with_image(ImagePhase.STORED)) == []
    assert lines(with_image(ImagePhase.STORED), with_image(ImagePhase.MOUNTING)) == [
        f"{subject}: stored -> mounting"
    ]


def test_a_service_was_idle_before_it_was_known() -> None:
    old = builders.world()
    new = worlds.running(builders.service("a"), builders.service("b"), b=ServicePhase.IDLE)
    changes = lines(replace(old, candidates=new.candidates, images=new.images), new)
    assert changes == ["service a: idle -> creating", "agent: searching -> activating"]


def test_the_agent_comes_last_with_its_reason() -> None:
    ready = worlds.running(builders.service("a"), a=ServicePhase.READY)
    hurt = worlds.change(ready, "a", phase=ServicePhase.PARKED, problem=NO)
    service, agent = find_changes(ready, hurt, builders.moment(5))
    assert service == Change(
        wall=1_700_000_005.0,
        subject="service a",
        old="ready",
        new="parked",
        reason="cannot trust it",
        code=Code.SIGNATURE,
    )
    assert (agent.old, agent.new) == (AgentState.READY, AgentState.DEGRADED)
    assert agent.reason == "a is parked"
