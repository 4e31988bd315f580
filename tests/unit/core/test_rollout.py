"""Which devices and services take part."""

from dataclasses import replace
from typing import Any

import pytest

from extsloader.core import fleet, rollout
from extsloader.model.history import History, Hold
from extsloader.model.ids import ServiceName
from extsloader.model.settings import Rollout, Settings
from extsloader.model.world import World
from tests.fakes import builders, worlds

A, B, C = ServiceName("a"), ServiceName("b"), ServiceName("c")


def device(number: int, **fields: Any) -> Settings:
    found = Settings(device_id=f"device-{number}")
    return replace(found, rollout=replace(found.rollout, **fields))


def test_about_as_many_devices_take_part_as_the_percentage_says() -> None:
    for percent in (0, 10, 50, 99):
        chosen = sum(rollout.is_on(device(n, percent=percent)) for n in range(2000))
        assert chosen / 20 == pytest.approx(percent, abs=3)


def test_a_higher_percentage_only_adds_devices() -> None:
    for number in range(200):
        on = [rollout.is_on(device(number, percent=percent)) for percent in range(0, 101, 10)]
        assert on == sorted(on)


def test_another_salt_chooses_other_devices() -> None:
    first = [rollout.is_on(device(n, percent=50)) for n in range(50)]
    second = [rollout.is_on(device(n, percent=50, salt="next")) for n in range(50)]
    assert first != second


def test_the_place_of_a_device_stays_the_same_for_ever() -> None:
    assert rollout.find_place(device(1)) == pytest.approx(94.9, abs=0.1)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (Settings(enabled=False), "switched off by configuration"),
        (
            Settings(rollout=Rollout(percent=99)),
            "rolled out to 99 % of the devices, and this one has no device_id",
        ),
        (
            device(1, percent=5),
            "rolled out to the first 5 % of the devices, and this one is at 94.9 %",
        ),
        (Settings(), ""),
    ],
)
def test_why_the_agent_does_nothing_is_said(settings: Settings, why: str) -> None:
    assert rollout.explain_off(settings) == why


def image(**fields: Any) -> World:
    world = worlds.running(
        builders.service("a"), builders.service("b", requires=["a"]), builders.service("c")
    )
    return replace(world, **fields)


@pytest.mark.parametrize(
    ("allow", "deny", "held"),
    [
        ((), (), set()),
        ((), ("a",), {"a"}),
        (("a", "b"), (), {"c"}),
        (("*",), ("[bc]",), {"b", "c"}),
        (("a",), ("a",), {"a", "b", "c"}),
    ],
)
def test_lists_hold_services(allow: tuple[str, ...], deny: tuple[str, ...], held: set[str]) -> None:
    found = rollout.find_holds(image(settings=Settings(rollout=Rollout(allow=allow, deny=deny))))
    assert set(found) == held
    assert {hold.state for hold in found.values()} <= {"excluded"}


def test_an_operators_word_is_told_as_such() -> None:
    world = image(history=History(holds={A: Hold.PAUSED, C: Hold.STOPPED}))
    found = rollout.find_holds(world)
    assert (found[A].state, found[A].hint) == ("paused", "extsloaderctl resume a")
    assert (found[C].state, found[C].hint) == ("stopped", "extsloaderctl start c")


def test_who_requires_a_held_service_cannot_run_either() -> None:
    world = image(history=History(holds={A: Hold.PAUSED}))
    assert rollout.find_held(world) == {A, B}
    assert fleet.find_wishes(world) == {A: False, B: False, C: True}


def test_pillar_holds_services_and_an_operator_is_asked_first() -> None:
    held = {A: "Pillar's setting x is false", B: "the override file of b says disabled"}
    world = worlds.running(*map(builders.service, "abc"))
    world = replace(world, held_by_pillar=held, history=History(holds={A: Hold.STOPPED}))
    found = rollout.find_holds(world)
    assert {name: hold.state for name, hold in found.items()} == {A: "stopped", B: "paused"}
    assert found[B].reason == held[B]
