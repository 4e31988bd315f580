"""Which services are wanted, which may start, and who has to go first."""

from dataclasses import replace

import pytest
from msgspec import structs

from extsloader.core import fleet
from extsloader.core.step import Step
from extsloader.model import effects as fx
from extsloader.model.events import ImageMounted, LoadRead, TimerFired, TimerId, TimerKind
from extsloader.model.ids import ServiceName
from extsloader.model.machine import Load
from extsloader.model.manifest import Conditions
from extsloader.model.reasons import Code, Problem
from extsloader.model.settings import Limits, Settings
from extsloader.model.world import ImagePhase, World
from extsloader.model.world import ServicePhase as P
from tests.fakes import builders, worlds

MOMENT = builders.moment()
PAIR = (builders.service("base"), builders.service("user", requires=["base"]))


def settle(world: World) -> Step:
    return fleet.settle(world, MOMENT)


def wishes(world: World) -> dict[str, bool]:
    return {str(name): wanted for name, wanted in fleet.find_wishes(world).items()}


def waits(world: World, name: str) -> tuple[str, ...]:
    wishes = fleet.find_wishes(world)
    gate = fleet.find_gate(world, wishes)
    return fleet.waits_for(world, worlds.state(world, name), wishes, gate)


def test_services_are_planned_in_start_order() -> None:
    image = builders.stored(*reversed(PAIR))
    planned = fleet.plan(builders.world(), image, worlds.mounted(image), MOMENT).world
    assert list(planned.services) == ["base", "user"]
    assert worlds.state(planned, "base").users == ("user",)
    assert all(state.plan is not None for state in planned.services.values())


def test_the_order_of_the_manifest_makes_no_difference() -> None:
    plans = []
    for services in (PAIR, tuple(reversed(PAIR))):
        image = builders.stored(*services)
        plans.append(fleet.plan(builders.world(), image, worlds.mounted(image), MOMENT).world)
    assert list(plans[0].services.items()) == list(plans[1].services.items())


def test_a_bundle_that_cannot_be_used_parks_its_service_with_the_reason() -> None:
    image = builders.stored(*PAIR, builders.service("third"))
    bad = Problem(Code.BUNDLE, "cannot read the bundle of base: a link")
    mounted = worlds.mounted(image, "base", "third")
    mounted = ImageMounted(
        image.digest, "/mnt", mounted.bundles, problems=((ServiceName("base"), bad),)
    )
    planned = fleet.plan(builders.world(), image, mounted, MOMENT).world
    assert worlds.phases(planned) == {"base": P.PARKED, "third": P.PARKED, "user": P.IDLE}
    assert worlds.state(planned, "base").problem == bad
    third = worlds.state(planned, "third").problem
    assert third is not None
    assert third.message.endswith("its bundle containers/services/third was not read")


def test_a_bundle_that_makes_no_sense_parks_its_service() -> None:
    image = builders.stored(PAIR[0])
    mounted = worlds.mounted(image)
    broken = tuple(replace(bundle, config="{") for bundle in mounted.bundles)
    planned = fleet.plan(
        builders.world(), image, structs.replace(mounted, bundles=broken), MOMENT
    ).world
    assert worlds.state(planned, "base").phase is P.PARKED


def test_without_services_there_is_nothing_to_do() -> None:
    world = builders.world()
    assert settle(world) == Step(world)


def test_only_so_many_containers_are_created_at_once() -> None:
    specs = [builders.service(name) for name in "abcde"]
    world = worlds.running(*specs, a=P.CREATING, b=P.IDLE, c=P.IDLE, d=P.DUE, e=P.IDLE)
    world = replace(world, settings=Settings(limits=Limits(parallel_creates=3)))
    created = [e.plan.service for e in settle(world).effects if isinstance(e, fx.CreateService)]
    assert created == ["b", "c"]


@pytest.mark.parametrize("phase", P)
def test_a_service_starts_only_when_what_it_requires_is_ready_or_finished(phase: P) -> None:
    world = worlds.running(*PAIR, base=phase, user=P.CREATED)
    started = fx.StartService(ServiceName("user"), 1) in settle(world).effects
    assert started == (phase in (P.READY, P.FINISHED))


@pytest.mark.parametrize("kind", ["wants", "after"])
@pytest.mark.parametrize(
    ("phase", "waiting"),
    [
        (P.IDLE, True),
        (P.STARTED, True),
        (P.READY, False),
        (P.REMOVING, False),
        (P.BACKING_OFF, False),
        (P.PARKED, False),
        (P.FINISHED, False),
    ],
)
def test_what_is_only_wanted_is_waited_for_until_it_is_ready_or_has_failed(
    kind: str, phase: P, *, waiting: bool
) -> None:
    services = (builders.service("base"), builders.service("user", **{kind: ["base"]}))
    world = worlds.running(*services, base=phase, user=P.CREATED)
    assert waits(world, "user") == (("base",) if waiting else ())


def test_what_is_not_there_or_not_wanted_is_not_waited_for() -> None:
    services = (
        *PAIR,
        builders.service("last", after=["user", "ghost"]),
    )
    world = worlds.running(*services, base=P.PARKED, user=P.IDLE, last=P.CREATED)
    assert waits(world, "last") == ()


def test_each_name_is_waited_for_once() -> None:
    services = (PAIR[0], builders.service("user", requires=["base"], after=["base"]))
    world = worlds.running(*services, base=P.STARTED, user=P.CREATED)
    assert waits(world, "user") == ("base",)


def test_who_requires_what_gave_up_is_not_wanted_down_the_whole_chain() -> None:
    services = (*PAIR, builders.service("top", requires=["user"]), builders.service("else"))
    world = worlds.running(*services, base=P.PARKED)
    assert wishes(world) == {"base": True, "else": True, "user": False, "top": False}


def test_a_crash_of_what_is_required_takes_nobody_down() -> None:
    world = worlds.running(*PAIR, base=P.BACKING_OFF, user=P.READY)
    assert wishes(world) == {"base": True, "user": True}
    assert settle(world) == Step(world)


def test_an_agent_that_stops_wants_nothing() -> None:
    world = replace(worlds.running(*PAIR), stopping=True)
    assert wishes(world) == {"base": False, "user": False}


def test_users_stop_before_what_they_use() -> None:
    world = replace(worlds.running(*PAIR, base=P.READY, user=P.READY), stopping=True)
    step = settle(world)
    assert worlds.kinds(step) == [*["CancelTimer"] * 3, "SignalService", "SetTimer"]
    assert worlds.phases(step.world) == {"base": P.READY, "user": P.STOPPING}
    assert settle(step.world) == Step(step.world)
    gone = worlds.change(step.world, "user", phase=P.IDLE)
    assert worlds.phases(settle(gone).world) == {"base": P.STOPPING, "user": P.IDLE}


@pytest.mark.parametrize("phase", [P.CREATING, P.CREATED, P.STARTING, P.KILLING, P.REMOVING])
def test_nothing_is_taken_away_under_a_user_that_is_still_there(phase: P) -> None:
    world = replace(worlds.running(*PAIR, base=P.CREATED, user=phase), stopping=True)
    assert worlds.state(settle(world).world, "base").phase is P.CREATED


@pytest.mark.parametrize("phase", [P.BACKING_OFF, P.PARKED, P.FINISHED])
def test_what_is_left_of_a_user_goes_first_too(phase: P) -> None:
    world = replace(worlds.running(*PAIR, base=P.READY, user=phase), stopping=True)
    assert worlds.phases(settle(world).world) == {"base": P.READY, "user": P.REMOVING}


def test_a_user_that_stays_wanted_is_not_waited_for() -> None:
    services = (
        builders.service("root"),
        builders.service("base", requires=["root"]),
        builders.service("user", wants=["base"]),
    )
    world = worlds.running(*services, root=P.PARKED, base=P.READY, user=P.READY)
    assert worlds.phases(settle(world).world) == {
        "root": P.PARKED,
        "base": P.STOPPING,
        "user": P.READY,
    }


def test_a_stop_forgives_earlier_failures() -> None:
    world = replace(worlds.running(PAIR[0], base=P.READY), stopping=True)
    world = worlds.change(world, "base", failures=3, after_removal=P.BACKING_OFF)
    state = worlds.state(settle(world).world, "base")
    assert (state.failures, state.after_removal) == (0, P.IDLE)


def test_a_service_whose_back_off_ends_while_all_stops_still_loses_its_mounts() -> None:
    """Idle would be a lie: the mounts of its last run are still there."""
    back_off = TimerId(TimerKind.BACK_OFF, ServiceName("base"))
    world = replace(worlds.running(*PAIR, base=P.BACKING_OFF, user=P.STOPPING), stopping=True)
    world = worlds.change(world, "user", after_removal=P.IDLE)
    due = worlds.tell(world, TimerFired(back_off))
    assert worlds.state(due.world, "base").phase is P.DUE
    gone = settle(worlds.change(due.world, "user", phase=P.IDLE))
    remove = gone.effects[-1]
    assert isinstance(remove, fx.RemoveService)
    assert remove.unmount


RIVALS = (builders.service("a", conflicts=["b"]), builders.service("b"))


def test_of_two_rivals_only_the_one_that_goes_first_is_wanted() -> None:
    world = worlds.running(*RIVALS, a=P.READY)
    assert wishes(world) == {"a": True, "b": False}
    skipped = fleet.find_skipped(world)
    assert skipped == {"b": "conflicts with a, which goes before it"}


@pytest.mark.parametrize("phase", [P.PARKED, P.FINISHED])
def test_a_rival_gets_its_turn_when_the_first_one_has_had_its(phase: P) -> None:
    world = worlds.running(*RIVALS, a=phase, b=P.CREATED)
    assert wishes(world) == {"a": True, "b": True}
    assert fx.StartService(ServiceName("b"), 1) in settle(world).effects


@pytest.mark.parametrize("phase", [P.STARTED, P.READY, P.STOPPING, P.KILLING, P.REMOVING])
def test_no_rival_is_started_before_the_other_one_is_gone(phase: P) -> None:
    world = worlds.running(*RIVALS, a=P.CREATED, b=phase)
    assert waits(world, "a") == ("b",)
    assert fx.StartService(ServiceName("a"), 1) not in settle(world).effects
    assert (
        fx.StartService(ServiceName("a"), 1)
        in settle(worlds.change(world, "b", phase=P.IDLE)).effects
    )


STAGES = (
    builders.service("one"),
    builders.service("other"),
    builders.service("two", stage=2),
    builders.service("three", stage=3),
)


def test_a_stage_waits_until_all_of_the_stage_before_is_ready_or_has_failed_once() -> None:
    world = worlds.running(*STAGES, one=P.STARTED, other=P.READY, two=P.CREATED, three=P.CREATED)
    assert waits(world, "two") == waits(world, "three") == ("one",)
    world = worlds.change(world, "one", phase=P.BACKING_OFF)
    assert (waits(world, "two"), waits(world, "three")) == ((), ("two",))


def test_what_is_not_wanted_holds_up_no_stage() -> None:
    world = worlds.running(*STAGES, one=P.READY, other=P.READY, three=P.CREATED)
    world = worlds.change(world, "two", skipped="no such device")
    assert waits(world, "three") == ()


def test_a_service_whose_conditions_are_not_met_is_skipped_and_so_is_who_requires_it() -> None:
    gpu = builders.service("gpu", conditions=Conditions(paths=("/dev/nvidia0",)))
    image = builders.stored(gpu, builders.service("user", requires=["gpu"]))
    planned = fleet.plan(builders.world(), image, worlds.mounted(image), MOMENT).world
    planned = replace(worlds.verified(image), services=planned.services)
    mounted = replace(planned.images[image.digest], phase=ImagePhase.MOUNTED)
    planned = replace(planned, images={image.digest: mounted})
    found = fleet.find_wishes(planned)
    assert not any(found.values())
    assert worlds.kinds(settle(planned))[-1] == "RemoveService", "an earlier agent may have left it"
    assert fleet.find_skipped(planned) == {
        "gpu": "there is no /dev/nvidia0 on this device",
        "user": "requires gpu, which is skipped",
    }
    there = structs.replace(worlds.mounted(image), existing=frozenset({"/dev/nvidia0"}))
    planned = fleet.plan(planned, image, there, MOMENT).world
    assert all(fleet.find_wishes(planned).values())


def test_a_dependency_that_returns_brings_its_dependants_back() -> None:
    world = worlds.running(*PAIR, base=P.PARKED, user=P.IDLE)
    assert fleet.find_lost(world) == {"base", "user"}
    assert settle(world) == Step(world)
    back = settle(worlds.change(world, "base", phase=P.READY))
    assert worlds.kinds(back) == ["CreateService"]
    assert worlds.state(back.world, "user").phase is P.CREATING


def test_restarts_of_all_services_share_one_budget_and_essential_ones_come_first() -> None:
    specs = [builders.service(n, essential=n == "d") for n in "abcd"]
    world = worlds.running(*specs, **dict.fromkeys("abcd", P.DUE))
    for name, retry_at in zip("abcd", (9.0, 8.0, 7.0, 9.5), strict=True):
        world = worlds.change(world, name, retry_at=retry_at)
    world = replace(world, settings=Settings(limits=Limits(restarts=2)))
    step = fleet.settle(world, builders.moment(10))
    assert [e.plan.service for e in step.effects if isinstance(e, fx.CreateService)] == ["d", "c"]
    assert step.effects[-1] == fx.SetTimer(TimerId(TimerKind.BUDGET), 30)
    assert fleet.settle(step.world, builders.moment(10)) == Step(step.world)
    later = fleet.settle(step.world, builders.moment(40))
    assert worlds.state(later.world, "b").phase is P.CREATING


def test_first_starts_are_no_restarts() -> None:
    world = worlds.running(
        *[builders.service(name) for name in "abc"], **dict.fromkeys("abc", P.IDLE)
    )
    world = replace(world, settings=Settings(limits=Limits(restarts=1)))
    assert worlds.kinds(settle(world)) == ["CreateService"] * 3


def test_a_start_without_room_on_the_device_is_held_up_and_a_restart_too() -> None:
    world = worlds.running(builders.service("a"), a=P.CREATED)
    load = Load(free_memory=1 << 20)
    full = worlds.tell(world, LoadRead(load))
    assert worlds.kinds(full) == ["SetTimer"]
    again = worlds.tell(full.world, TimerFired(TimerId(TimerKind.ADMIT)), now=1)
    assert again.effects == (fx.ReadLoad(),)
    free = worlds.tell(again.world, LoadRead(Load(free_memory=1 << 30)), now=1)
    assert free.effects == (fx.StartService(ServiceName("a"), 1),)
