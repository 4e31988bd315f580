"""Whether the device has room for one more start."""

from dataclasses import replace

import pytest

from extsloader.core import admission
from extsloader.core.step import Step
from extsloader.model import effects as fx
from extsloader.model.machine import Load
from extsloader.model.reasons import Code
from extsloader.model.settings import Limits, Settings
from extsloader.model.world import World
from tests.fakes import builders

LIMITS = Limits(free_memory=100 << 20, memory_pressure=50, cpu_pressure=80)
PLENTY = Load(free_memory=1 << 30, memory_pressure=0.0, cpu_pressure=0.0)
NOTHING = Load(free_memory=10 << 20)


def world(load: Load | None = None, limits: Limits = LIMITS) -> World:
    empty = builders.world(settings=Settings(limits=limits))
    return admission.take_load(empty, load, builders.moment()).world if load else empty


def admits(found: World, now: float = 0.0) -> bool:
    return admission.admits(found, builders.moment(now))


def hold_up(found: World, now: float = 0.0) -> Step:
    return admission.hold_up(found, builders.moment(now))


def test_where_nobody_knows_every_start_is_admitted() -> None:
    assert admits(world())
    lost = admission.take_load(world(NOTHING), None, builders.moment()).world
    assert admits(lost, now=99)


@pytest.mark.parametrize(
    ("load", "reason"),
    [
        (PLENTY, ""),
        (Load(free_memory=100 << 20, memory_pressure=50.0, cpu_pressure=80.0), ""),
        (NOTHING, "10 MiB of memory are free, 100 MiB are needed"),
        (
            replace(PLENTY, memory_pressure=50.1),
            "tasks waited for memory 50 % of the last 10 s, 50 % are allowed",
        ),
        (
            replace(PLENTY, cpu_pressure=99.0),
            "tasks waited for processor 99 % of the last 10 s, 80 % are allowed",
        ),
    ],
)
def test_memory_and_pressure_decide_and_the_reason_has_both_numbers(
    load: Load, reason: str
) -> None:
    refusal = world(load).admission.refusal
    assert admits(world(load)) == (not reason)
    if reason:
        assert refusal is not None
        assert refusal.code is Code.RESOURCE
        assert refusal.message == f"cannot start more services now: {reason}"


def test_what_is_not_limited_is_not_looked_at() -> None:
    free = Limits(free_memory=0, memory_pressure=0, cpu_pressure=0)
    busy = Load(free_memory=0, memory_pressure=100.0, cpu_pressure=100.0)
    assert admits(world(busy, free))


def test_an_old_reading_counts_for_nothing_and_a_new_one_is_asked_for_once() -> None:
    old = world(PLENTY)
    assert not admits(old, now=9)
    asked = hold_up(old, now=9)
    assert asked.effects == (fx.ReadLoad(),)
    assert hold_up(asked.world, now=9) == Step(asked.world)
    assert not admits(asked.world, now=9)
    meanwhile = admission.take_load(asked.world, PLENTY, builders.moment(9)).world
    assert meanwhile.admission.asking, "a new container brings one, too"
    told = admission.take_answer(asked.world, PLENTY, builders.moment(9)).world
    assert admits(told, now=9)


def test_without_room_the_next_look_is_put_off_longer_and_longer() -> None:
    full, pauses, now = world(NOTHING), [], 0.0
    for _ in range(7):
        step = hold_up(full, now)
        (timer,) = step.effects
        assert isinstance(timer, fx.SetTimer)
        assert hold_up(step.world, now) == Step(step.world), "once is enough"
        pauses.append(timer.delay)
        now += timer.delay
        asked = hold_up(admission.fire(step.world).world, now)
        assert asked.effects == (fx.ReadLoad(),)
        full = admission.take_answer(asked.world, NOTHING, builders.moment(now)).world
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


def test_room_opens_the_door_before_the_timer_does() -> None:
    waiting = hold_up(world(NOTHING)).world
    step = admission.take_load(waiting, PLENTY, builders.moment(1))
    assert step.effects == (fx.CancelTimer(admission.TIMER),)
    assert admits(step.world, now=1)
    assert step.world.admission.tries == 0


def test_the_same_reading_again_is_no_new_world() -> None:
    full = world(NOTHING)
    assert admission.take_load(full, NOTHING, builders.moment()) == Step(full)
