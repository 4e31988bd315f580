"""One budget for the restarts of all services, so that many crash loops make no storm.

The generic cell rate algorithm (ITU-T I.371, A): one number says until when the restarts so far
have used the budget up. A minute's worth may come at once, after that they come evenly spaced.
"""

from dataclasses import replace

from extsloader.core.step import Step
from extsloader.model.effects import SetTimer
from extsloader.model.events import TimerId, TimerKind
from extsloader.model.machine import Moment
from extsloader.model.world import World

MINUTE = 60.0
TIMER = TimerId(TimerKind.BUDGET)


def seconds_left(world: World, moment: Moment) -> float:
    """Seconds until the next restart is within the budget; 0: it is now."""
    restarts = world.settings.limits.restarts
    if not restarts:
        return 0.0
    return max(0.0, world.restarts_paid - moment.now - MINUTE + MINUTE / restarts)


def spend(world: World, moment: Moment) -> World:
    """One restart is begun."""
    restarts = world.settings.limits.restarts
    if not restarts:
        return world
    return replace(world, restarts_paid=max(moment.now, world.restarts_paid) + MINUTE / restarts)


def wait(world: World, moment: Moment) -> Step:
    """Look again when the budget allows the next restart."""
    if world.budget_spent:
        return Step(world)
    timer = SetTimer(TIMER, seconds_left(world, moment))
    return Step(replace(world, budget_spent=True), (timer,))


def fire(world: World) -> Step:
    """The timer ran out: what is due may be restarted."""
    return Step(replace(world, budget_spent=False))
