"""One budget for the restarts of all services."""

from itertools import pairwise

import pytest

from extsloader.core import budget
from extsloader.model.effects import SetTimer
from extsloader.model.settings import Limits, Settings
from extsloader.model.world import World
from tests.fakes import builders


def world(restarts: int = 30) -> World:
    return builders.world(settings=Settings(limits=Limits(restarts=restarts)))


def restart_greedily(restarts: int, seconds: int) -> list[int]:
    """At which tenths of a second a restart is begun, if there is always somebody who wants one."""
    now, found = world(restarts), []
    for tenth in range(seconds * 10):
        moment = builders.moment(1000 + tenth / 10)
        while not budget.seconds_left(now, moment):
            now = budget.spend(now, moment)
            found.append(tenth)
    return found


def test_a_minutes_worth_comes_at_once_and_the_rest_evenly_spaced() -> None:
    found = restart_greedily(30, 60)
    assert found[:30] == [0] * 30
    pauses = {later - earlier for earlier, later in pairwise(found[29:])}
    assert pauses <= {19, 20, 21}, "one in two seconds"
    assert len(found) == pytest.approx(59, abs=1)


def test_a_quiet_minute_fills_the_budget_again() -> None:
    spent = world(2)
    for _ in range(2):
        spent = budget.spend(spent, builders.moment(10))
    assert budget.seconds_left(spent, builders.moment(10)) == 30
    assert budget.seconds_left(spent, builders.moment(40)) == 0
    assert budget.seconds_left(spent, builders.moment(70)) == 0


def test_without_a_budget_nothing_is_counted() -> None:
    free = world(0)
    assert budget.spend(free, builders.moment(5)) is free
    assert budget.seconds_left(free, builders.moment(5)) == 0


def test_one_timer_waits_for_the_next_restart_of_anybody() -> None:
    spent = budget.spend(world(1), builders.moment(5))
    step = budget.wait(spent, builders.moment(15))
    assert step.effects == (SetTimer(budget.TIMER, 50),)
    assert not budget.wait(step.world, builders.moment(15)).effects
    assert not budget.fire(step.world).world.budget_spent
