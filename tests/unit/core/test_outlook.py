"""For how long a service has waited, and what will happen then."""

from dataclasses import replace

import pytest

from extsloader.core.outlook import foresee
from extsloader.model.machine import Load
from extsloader.model.manifest import Readiness, Restart
from extsloader.model.reasons import Code, Problem
from extsloader.model.settings import Limits, Settings
from extsloader.model.world import Admission, World
from extsloader.model.world import ServicePhase as P
from tests.fakes import builders, worlds

BASE = builders.service("base")
SLOW = builders.service(
    "user", requires=["base"], readiness=worlds.BY_TCP, restart=Restart(limit=2)
)
NOW = builders.moment(100.0)


def tell(world: World, *waiting: str) -> str:
    state = worlds.state(world, "user")
    return foresee(world, state, tuple(worlds.state(world, n).spec.name for n in waiting), NOW)


def user(phase: P, **fields: object) -> World:
    fields.setdefault("since", NOW.wall - 12)
    return worlds.change(worlds.running(BASE, SLOW, user=phase), "user", **fields)


@pytest.mark.parametrize(
    ("world", "sentence"),
    [
        (user(P.READY), ""),
        (
            user(P.STARTED, waiting_since=88.0),
            "it has waited 12 s; after 30 s it is stopped and tried again",
        ),
        (
            user(P.STARTED, waiting_since=88.0, failures=2),
            "it has waited 12 s; after 30 s it is given up",
        ),
        (user(P.BACKING_OFF, failures=1), "failure 1; after 2 it is given up"),
        (user(P.DUE, failures=1), "failure 1; after 2 it is given up"),
        (
            user(P.PARKED),
            "it stays down until somebody starts it: extsloaderctl start user",
        ),
    ],
)
def test_each_wait_has_its_end(world: World, sentence: str) -> None:
    assert tell(world) == sentence


def test_a_service_that_needs_another_hears_what_becomes_of_it() -> None:
    assert tell(user(P.CREATED), "base") == (
        "it has waited 12 s; it starts when they are ready, and not while one has given up"
    )


def test_a_service_that_only_comes_later_hears_that_too() -> None:
    spec = builders.service("user", after=["base"])
    world = worlds.change(worlds.running(BASE, spec), "user", phase=P.IDLE, since=NOW.wall)
    assert tell(world, "base").endswith("ready, have failed once or have made room")


def test_a_delay_says_how_long_it_still_takes() -> None:
    spec = builders.service("user", readiness=Readiness(seconds=20))
    world = worlds.change(worlds.running(spec), "user", phase=P.STARTED, waiting_since=95.0)
    assert tell(world) == "it is called ready in 15 s"


def test_a_start_without_room_says_when_the_device_is_looked_at_again() -> None:
    full = Admission(load=Load(free_memory=0), refusal=Problem(Code.RESOURCE, "no"), retry_at=107.0)
    world = user(P.CREATED)
    world = replace(world, admission=full)
    assert tell(world) == "the device is looked at again in 7 s"


def test_a_restart_that_is_not_in_the_budget_says_when_there_is_more() -> None:
    settings = Settings(limits=Limits(restarts=2))
    world = replace(user(P.DUE), settings=settings, restarts_paid=150.0)
    assert tell(world) == "all services together may restart 2 times a minute: more in 20 s"
