"""The look at everything, once a minute."""

from dataclasses import replace

import pytest

from extsloader.core import reconcile
from extsloader.model import effects as fx
from extsloader.model import events as ev
from extsloader.model.history import History
from extsloader.model.ids import Digest
from extsloader.model.settings import Settings
from extsloader.model.world import ServicePhase
from tests.fakes import builders, worlds

IMAGE = builders.stored(builders.service("a", essential=True))
OLD = Digest("e" * 64)


@pytest.mark.parametrize(("dice", "delay"), [(0.0, 54.0), (0.5, 60.0), (1.0, 66.0)])
def test_it_comes_by_itself_with_jitter(dice: float, delay: float) -> None:
    order = reconcile.begin(builders.moment(dice=dice))
    assert order.delay == pytest.approx(delay)


def test_every_provider_is_listed_and_the_socket_looked_at() -> None:
    world = replace(builders.world(), providers=("udev", "files"))
    step = worlds.tell(world, ev.TimerFired(reconcile.TIMER))
    assert step.effects == (fx.KeepSocket(), fx.ListSources("udev"), fx.ListSources("files"))


def test_an_agent_that_is_off_looks_at_no_device_and_keeps_its_socket() -> None:
    world = builders.world(settings=Settings(enabled=False), providers=("udev",))
    assert worlds.tell(world, ev.TimerFired(reconcile.TIMER)).effects == (fx.KeepSocket(),)


def test_an_idle_agent_changes_nothing_by_looking() -> None:
    world = replace(builders.world(), providers=("udev",))
    fired = worlds.tell(world, ev.TimerFired(reconcile.TIMER), ev.SourcesListed("udev", ()))
    assert fired.world is world


def test_a_minute_is_a_clean_one_and_what_runs_in_it_is_known_to_work() -> None:
    crashed = History(starts=4, good=OLD)
    for phase, good in ((ServicePhase.READY, IMAGE.digest), (ServicePhase.PARKED, OLD)):
        running = worlds.running(builders.service("a", essential=True), a=phase)
        step = reconcile.fire(replace(running, history=crashed), builders.moment())
        assert step.world.history == History(starts=0, good=good)
