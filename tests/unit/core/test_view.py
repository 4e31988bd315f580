"""The status as readers see it."""

from dataclasses import replace

import pytest

from extsloader.core import view
from extsloader.core.candidates import UNDECIDED
from extsloader.model.events import Cause, CauseKind
from extsloader.model.machine import Machine
from extsloader.model.reasons import Code, Problem
from extsloader.model.settings import Limits, Settings
from extsloader.model.status import AgentState, CandidateStatus, ServiceStatus
from extsloader.model.world import (
    Admission,
    Candidate,
    CandidatePhase,
    ImagePhase,
    ServicePhase,
    World,
)
from extsloader.model.world import ServicePhase as P
from tests.fakes import builders, worlds

STICK = builders.source()
IMAGE = builders.stored(builders.service("a"), sequence=5)
NO = Problem(Code.SIGNATURE, "cannot trust it", "sign it")
PAIR = (builders.service("base"), builders.service("user", requires=["base"]))


def with_stick(phase: CandidatePhase, **fields: object) -> World:
    candidate = replace(Candidate(source=STICK, phase=phase), **fields)  # type: ignore[arg-type]
    return builders.world(candidates={STICK.id: candidate})


def broken(*, explained: bool = True) -> World:
    world = worlds.verified(IMAGE)
    image = replace(world.images[IMAGE.digest], phase=ImagePhase.BROKEN)
    image = replace(image, problem=NO if explained else None)
    return replace(world, images={IMAGE.digest: image}, active=None)


def show(world: World, name: str, now: float = 0.0) -> ServiceStatus:
    snapshot = view.take_snapshot(world, builders.moment(now))
    return {service.name: service for service in snapshot.services}[
        worlds.state(world, name).spec.name
    ]


def show_stick(world: World) -> CandidateStatus:
    return view.take_snapshot(world, builders.moment()).candidates[0]


@pytest.mark.parametrize(
    ("world", "state", "reason"),
    [
        (builders.world(), AgentState.SEARCHING, "no image found yet"),
        (
            builders.world(settings=Settings(enabled=False)),
            AgentState.DISABLED,
            "switched off by configuration",
        ),
        (builders.world(stopping=True), AgentState.STOPPING, "asked to stop"),
        (with_stick(CandidatePhase.PROBING), AgentState.SEARCHING, "no image found yet"),
        (with_stick(CandidatePhase.QUEUED), AgentState.VERIFYING, "verifying /dev/sdb"),
        (
            with_stick(CandidatePhase.REFUSED, problem=NO),
            AgentState.SEARCHING,
            "refused /dev/sdb: E_SIGNATURE: cannot trust it",
        ),
        (with_stick(CandidatePhase.REFUSED), AgentState.SEARCHING, "no image found yet"),
        (worlds.verified(IMAGE), AgentState.ACTIVATING, "mounting image dddddddddddd"),
        (broken(), AgentState.FAILED, "cannot trust it"),
        (broken(explained=False), AgentState.SEARCHING, "no image found yet"),
    ],
)
def test_the_search_has_a_state_and_a_reason(world: World, state: AgentState, reason: str) -> None:
    assert view.judge(world) == (state, reason)


def test_a_stick_that_is_still_read_comes_before_a_broken_image() -> None:
    candidate = Candidate(source=STICK, phase=CandidatePhase.VERIFYING)
    world = replace(broken(), candidates={STICK.id: candidate})
    assert view.judge(world)[0] is AgentState.VERIFYING
    assert CandidatePhase.VERIFYING in UNDECIDED


@pytest.mark.parametrize(
    ("phases", "fields", "state", "reason"),
    [
        ({"base": P.READY, "user": P.FINISHED}, {}, "ready", "all 2 services are ready"),
        ({"base": P.READY, "user": P.STARTED}, {}, "activating", "1 of 2 services are ready"),
        ({"base": P.BACKING_OFF, "user": P.IDLE}, {}, "degraded", "base is backing off"),
        ({"base": P.PARKED, "user": P.IDLE}, {}, "degraded", "base is parked"),
        (
            {"base": P.CREATING, "user": P.READY},
            {"ready_once": True},
            "degraded",
            "base is creating",
        ),
    ],
)
def test_the_services_make_the_state_of_the_whole(
    phases: dict[str, P], fields: dict[str, object], state: str, reason: str
) -> None:
    world = worlds.change(worlds.running(*PAIR, **phases), "base", **fields)
    assert view.judge(world) == (state, reason)


def test_an_essential_service_that_gave_up_is_a_failure_of_the_whole() -> None:
    world = worlds.running(builders.service("core", essential=True), core=P.PARKED)
    assert view.judge(world) == (AgentState.FAILED, "essential core is parked")


def test_only_so_many_services_are_named() -> None:
    services = [builders.service(name) for name in "abcde"]
    world = worlds.running(*services, **dict.fromkeys("abcde", P.PARKED))
    assert view.judge(world)[1] == "a is parked, b is parked, c is parked and 2 more"


@pytest.mark.parametrize(
    ("phase", "state", "reason"),
    [
        (P.READY, AgentState.DEGRADED, "cannot trust it; all 1 services are ready"),
        (P.STARTED, AgentState.DEGRADED, "cannot trust it; 0 of 1 services are ready"),
        (P.PARKED, AgentState.FAILED, "essential a is parked; cannot trust it"),
    ],
)
def test_a_damaged_image_is_the_first_thing_to_know(
    phase: P, state: AgentState, reason: str
) -> None:
    world = worlds.running(builders.service("a", essential=True), a=phase)
    damaged = {digest: replace(image, damage=NO) for digest, image in world.images.items()}
    snapshot = view.take_snapshot(replace(world, images=damaged), builders.moment())
    assert (snapshot.state, snapshot.reason) == (state, reason)
    assert snapshot.problems == (NO,)
    assert snapshot.image
    assert snapshot.image.phase == "damaged"


@pytest.mark.parametrize(("no_verity", "word"), [("", "verity"), ("none", "store")])
def test_the_integrity_is_said_in_one_word(no_verity: str, word: str) -> None:
    machine = Machine(arch="amd64", no_verity=no_verity)
    world = replace(worlds.running(builders.service("a")), machine=machine)
    image = view.take_snapshot(world, builders.moment()).image
    assert image
    assert image.integrity == word


def test_without_an_image_there_is_none_to_show() -> None:
    assert view.take_snapshot(builders.world(), builders.moment()).image is None
    gone = builders.world(active=IMAGE.digest)
    assert view.take_snapshot(gone, builders.moment()).image is None


def test_the_image_says_where_it_came_from_and_whether_that_is_still_there() -> None:
    world = worlds.verified(IMAGE)
    image = view.take_snapshot(world, builders.moment()).image
    assert image is not None
    assert (image.sequence, image.source, image.source_present) == (5, "/dev/sdb", True)
    assert (image.phase, image.keys) == ("mounting", ("key-1",))
    forgotten = view.take_snapshot(replace(world, candidates={}), builders.moment()).image
    assert forgotten is not None
    assert not forgotten.source_present


def test_an_image_in_a_file_system_is_shown_with_its_file() -> None:
    world = worlds.verified(IMAGE)
    inside = {
        id_: replace(candidate, file="pkgs.img") for id_, candidate in world.candidates.items()
    }
    status = view.take_snapshot(replace(world, candidates=inside), builders.moment())
    assert status.image is not None
    assert status.image.source == "/dev/sdb:pkgs.img"
    assert [(c.device, c.file) for c in status.candidates] == [("/dev/sdb", "pkgs.img")]


@pytest.mark.parametrize(
    ("phase", "state"),
    [(P.IDLE, "blocked"), (P.CREATED, "blocked"), (P.CREATING, "creating"), (P.PARKED, "parked")],
)
def test_a_service_that_waits_before_its_start_is_blocked(phase: P, state: str) -> None:
    service = show(worlds.running(*PAIR, base=P.STARTED, user=phase), "user")
    assert service.state == state
    waits = phase is not P.PARKED
    assert service.waiting_for == (("base",) if waits else ())
    assert service.reason == ("waits for base" if waits else "")


def test_a_service_that_runs_says_what_it_misses() -> None:
    service = show(worlds.running(*PAIR, base=P.BACKING_OFF, user=P.READY), "user")
    assert (service.state, service.waiting_for) == ("ready", ("base",))


@pytest.mark.parametrize(("detail", "said"), [("", ""), ("refused", ": refused")])
def test_a_started_service_says_what_is_waited_for(detail: str, said: str) -> None:
    world = worlds.running(builders.service("a", readiness=worlds.BY_TCP), a=P.STARTED)
    service = show(worlds.change(world, "a", detail=detail), "a")
    assert service.reason == f"waits for readiness by tcp{said}"


def test_a_service_that_backs_off_says_why_and_how_long() -> None:
    world = worlds.change(
        worlds.running(builders.service("a"), a=P.BACKING_OFF),
        "a",
        problem=NO,
        retry_at=10.0,
        run=4,
        last_exit=Cause(CauseKind.CODE, 7),
        granted=("no io limits",),
    )
    service = show(world, "a", now=4)
    assert (service.code, service.reason, service.hint) == (
        Code.SIGNATURE,
        "cannot trust it",
        "sign it",
    )
    assert (service.retry_in, service.restarts) == (6, 3)
    assert service.last_exit == "exit code 7"
    assert service.reduced[-1] == "no io limits"
    assert show(world, "a", now=99).retry_in == 0


def test_a_service_without_a_plan_has_no_limits() -> None:
    world = worlds.running(builders.service("a"), a=P.PARKED)
    found = show(world, "a")
    assert found.limits is not None
    assert found.limits.memory == 128 << 20
    bare = show(worlds.change(world, "a", plan=None), "a")
    assert (bare.limits, bare.reduced) == (None, ())


def test_a_ready_service_does_not_tell_old_stories() -> None:
    world = worlds.change(worlds.running(builders.service("a"), a=P.READY), "a", problem=NO)
    assert show(world, "a").reason == ""


def test_progress_is_a_share_and_only_there_while_copying() -> None:
    assert show_stick(with_stick(CandidatePhase.VERIFYING, done=1, total=4)).progress == 0.25
    assert show_stick(with_stick(CandidatePhase.VERIFYING)).progress is None
    assert show_stick(with_stick(CandidatePhase.REFUSED, done=1, total=4)).progress is None


def test_a_refused_candidate_shows_its_problem() -> None:
    shown = show_stick(with_stick(CandidatePhase.REFUSED, problem=NO))
    assert (shown.code, shown.reason, shown.hint) == (Code.SIGNATURE, "cannot trust it", "sign it")


@pytest.mark.parametrize(
    ("sequence", "says"),
    [
        (6, "newer than the active image (6 > 5): used at the agent's next start"),
        (4, "not newer than the active image (4 <= 5)"),
        (5, ""),
    ],
)
def test_a_verified_image_that_is_not_active_says_why(sequence: int, says: str) -> None:
    other = builders.stored(builders.service("a"), sequence=sequence)
    world = worlds.verified(other, worlds.verified(IMAGE), "/dev/sdc")
    shown = view.take_snapshot(world, builders.moment()).candidates[-1]
    assert (shown.verdict, shown.code, shown.reason) == ("verified", None, says)


def test_a_verified_image_that_was_dropped_says_so() -> None:
    other = builders.stored(builders.service("a"), sequence=4)
    world = worlds.verified(other, worlds.verified(IMAGE), "/dev/sdc")
    images = {d: i for d, i in world.images.items() if d != other.digest}
    shown = view.take_snapshot(replace(world, images=images), builders.moment()).candidates[-1]
    assert shown.reason == "verified, and dropped from the store for better ones"


def test_before_any_image_is_active_none_stands_by() -> None:
    world = replace(worlds.verified(IMAGE), active=None)
    assert show_stick(world).reason == ""


def test_all_phases_can_be_shown() -> None:
    for phase in ServicePhase:
        assert show(worlds.running(*PAIR, base=phase), "base").name == "base"


def test_a_skipped_service_is_no_failure_and_says_why() -> None:
    world = worlds.running(*PAIR, builders.service("c"), base=P.IDLE, user=P.IDLE, c=P.READY)
    world = worlds.change(world, "base", skipped="there is no /dev/tpm0 on this device")
    assert view.judge(world) == (AgentState.READY, "all 1 services are ready, 2 skipped")
    shown = show(world, "base")
    assert (shown.state, shown.reason) == ("skipped", "there is no /dev/tpm0 on this device")
    assert show(world, "user").reason == "requires base, which is skipped"


def test_never_ready_because_everything_is_skipped() -> None:
    world = worlds.change(worlds.running(PAIR[0]), "base", skipped="no such device")
    assert view.judge(world)[0] is AgentState.DEGRADED


def test_an_essential_service_whose_requirement_gave_up_is_a_failure_of_the_whole() -> None:
    services = (PAIR[0], builders.service("core", essential=True, requires=["base"]))
    world = worlds.running(*services, base=P.PARKED, core=P.IDLE)
    assert view.judge(world)[0] is AgentState.FAILED
    shown = show(world, "core")
    assert (shown.state, shown.code) == ("blocked", Code.DEPENDENCY)
    assert shown.reason == "cannot run core: it requires base, which has given up"
    assert shown.hint == "extsloaderctl explain base"


@pytest.mark.parametrize(
    ("budget", "state"),
    [(0, AgentState.DEGRADED), (2, AgentState.DEGRADED), (1, AgentState.FAILED)],
)
def test_the_failure_budget_decides_how_many_optional_services_may_be_lost(
    budget: int, state: AgentState
) -> None:
    world = worlds.running(*PAIR, builders.service("c"), base=P.PARKED, user=P.IDLE, c=P.READY)
    world = replace(world, settings=Settings(limits=Limits(failures=budget)))
    found, reason = view.judge(world)
    assert found is state
    if state is AgentState.FAILED:
        assert reason == ("2 services have given up, 1 may: base is parked, user is idle")


def test_a_start_that_is_put_off_says_what_is_missing() -> None:
    no = Problem(Code.RESOURCE, "cannot start more services now: no memory", "free some")
    world = worlds.running(builders.service("a"), a=P.CREATED)
    world = replace(world, admission=Admission(refusal=no, deferred=True, tries=1, retry_at=4.0))
    shown = show(world, "a", now=1.0)
    assert (shown.state, shown.code, shown.reason) == ("blocked", Code.RESOURCE, no.message)
    assert shown.outlook == "the device is looked at again in 3 s"
    assert view.judge(world) == (
        AgentState.ACTIVATING,
        f"0 of 1 services are ready: {no.message}",
    )
