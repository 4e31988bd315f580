"""Which services are wanted, which may start, and who has to go first."""

from dataclasses import replace

import pytest

from extsloader.core import fleet
from extsloader.core.step import Step
from extsloader.model import effects as fx
from extsloader.model.events import ImageMounted, TimerFired, TimerId, TimerKind
from extsloader.model.ids import ServiceName
from extsloader.model.reasons import Code, Problem
from extsloader.model.settings import Limits, Settings
from extsloader.model.world import ServicePhase as P
from extsloader.model.world import World
from tests.fakes import builders, worlds

MOMENT = builders.moment()
PAIR = (builders.service("base"), builders.service("user", requires=["base"]))


def settle(world: World) -> Step:
    return fleet.settle(world, MOMENT)


def wishes(world: World) -> dict[str, bool]:
    return {str(name): wanted for name, wanted in fleet.find_wishes(world).items()}


def waits(world: World, name: str) -> tuple[str, ...]:
    return fleet.waits_for(world, worlds.state(world, name), fleet.find_wishes(world))


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
    planned = fleet.plan(builders.world(), image, replace(mounted, bundles=broken), MOMENT).world
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
