"""Once a minute: look at everything, and take stock of how well it goes.

A lost event or a removed socket is found so at the latest (rule: events are hints). A minute in
which the agent has lived is also what tells a crash loop from a crash.
"""

from dataclasses import replace

from extsloader.core import rollout, view
from extsloader.core.step import Step
from extsloader.model.effects import Effect, KeepSocket, ListSources, SetTimer
from extsloader.model.events import TimerId, TimerKind
from extsloader.model.ids import Digest
from extsloader.model.machine import Moment
from extsloader.model.status import AgentState
from extsloader.model.world import World

TIMER = TimerId(TimerKind.RECONCILE)
PERIOD = 60.0  # seconds
JITTER = 0.1  # share of the period: the agents of a fleet that boots do not go in step

WELL = frozenset({AgentState.READY, AgentState.DEGRADED})


def begin(moment: Moment) -> SetTimer:
    """The first or the next look."""
    return SetTimer(TIMER, PERIOD * (1.0 + JITTER * (2.0 * moment.dice - 1.0)))


def fire(world: World, moment: Moment) -> Step:
    """Have everything looked at."""
    looks: tuple[Effect, ...] = ()
    if rollout.is_on(world.settings) and not world.stopping:
        looks = tuple(ListSources(provider) for provider in world.providers)
    return Step(_take_stock(world), (KeepSocket(), *looks, begin(moment)))


def _take_stock(world: World) -> World:
    """The agent has not crashed for a minute; what runs now may be what it goes back to."""
    stock = replace(world.history, starts=0, good=_find_good(world))
    return world if stock == world.history else replace(world, history=stock)


def _find_good(world: World) -> Digest | None:
    well = world.active is not None and view.judge(world)[0] in WELL
    return world.active if well else world.history.good
