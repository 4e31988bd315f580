"""Decisions in a row."""

from dataclasses import replace

from extsloader.core.step import REMEMBERED, Step, leave, note, put
from extsloader.model.effects import Finish, ListSources
from extsloader.model.reasons import Code, Problem
from extsloader.model.world import World
from tests.fakes import builders

BUSY = Problem(Code.MOUNT, "cannot unmount it: busy")


def list_sources(world: World, provider: str, *, stopping: bool) -> Step:
    return Step(replace(world, stopping=stopping), (ListSources(provider),))


def test_the_next_decision_sees_the_last_ones_world_and_adds_its_orders() -> None:
    step = Step(builders.world(), (Finish(),)).then(list_sources, "udev", stopping=True)
    assert step.world.stopping
    assert step.effects == (Finish(), ListSources("udev"))


def test_putting_leaves_the_old_mapping_alone() -> None:
    old = {"a": 1, "b": 2}
    assert put(old, "b", 3) == {"a": 1, "b": 3}
    assert old == {"a": 1, "b": 2}


def test_what_is_left_behind_is_remembered_until_it_is_undone() -> None:
    world = leave(builders.world(), "a", BUSY)
    assert world.leftovers == {"a": BUSY}
    assert leave(world, "a", BUSY) is world
    assert leave(world, "b", None) is world
    assert not leave(world, "a", None).leftovers


def test_a_problem_of_nobody_is_remembered_once_and_is_no_leftover() -> None:
    world = note(builders.world(), BUSY)
    assert (world.problems, world.leftovers) == ((BUSY,), {})
    assert note(world, BUSY) is world


def test_only_the_last_ones_are_remembered() -> None:
    world = builders.world()
    for pid in range(1000):
        world = note(world, Problem(Code.BUSY, f"cannot remove the group: process {pid} is in it"))
    assert len(world.problems) == REMEMBERED
    assert "process 999 " in world.problems[-1].message
