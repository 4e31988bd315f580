"""A new configuration changes what it can, and says what it cannot."""

from dataclasses import replace

import pytest

from extsloader.core import reload
from extsloader.model import effects as fx
from extsloader.model import events as ev
from extsloader.model.control import Answer, Result, Verb
from extsloader.model.settings import Limits, Rollout, Settings, Timeouts
from extsloader.model.world import ServicePhase, World
from tests.fakes import builders, worlds

NOTHING = Answer(result=Result.ALREADY, message="nothing has changed")


def waiting(world: World | None = None) -> World:
    return replace(world or builders.world(), providers=("udev",), reloading=(7, 8))


def answers(effects: tuple[fx.Effect, ...]) -> list[Answer]:
    return [effect.answer for effect in effects if isinstance(effect, fx.Reply)]


def test_it_is_read_once_for_all_who_ask_meanwhile() -> None:
    first = worlds.tell(builders.world(), ev.Asked(Verb.RELOAD, 0, request=7))
    assert first.effects == (fx.LoadSettings(),)
    second = worlds.tell(first.world, ev.Asked(Verb.RELOAD, 0, request=8))
    assert second.effects == ()
    done = worlds.tell(second.world, ev.SettingsLoaded(Settings()))
    assert done.effects == (fx.Reply(7, NOTHING), fx.Reply(8, NOTHING))
    assert done.world.reloading is None


def test_what_only_the_core_reads_changes_at_once() -> None:
    new = Settings(
        rollout=Rollout(deny=("a",)),
        limits=Limits(store_images=5),
        timeouts=Timeouts(retry_limit=1),
    )
    step = reload.take(waiting(), new)
    assert step.world.settings == new
    message = "changed: rollout.deny, limits.store_images, timeouts.retry_limit"
    assert answers(step.effects) == [Answer(result=Result.ACCEPTED, message=message)] * 2


def test_what_is_built_in_waits_for_a_restart_and_the_status_says_so() -> None:
    new = Settings(enabled=True, limits=Limits(memory=1 << 30), cgroup="other")
    step = reload.take(waiting(), new)
    assert step.world.settings == Settings()
    pending = reload.find_pending(step.world)
    assert pending
    assert pending.message == "cannot change cgroup, limits.memory while the agent runs"
    (first, _) = answers(step.effects)
    assert first.message == "only after a restart of the agent: cgroup, limits.memory"
    back = reload.take(replace(step.world, reloading=(9,)), Settings())
    assert reload.find_pending(back.world) is None


def test_h170_a_bad_one_changes_nothing_and_is_told_until_there_is_a_good_one() -> None:
    step = reload.refuse(waiting(), ("x.toml: enabled: expected a bool", "y.toml: what"))
    assert step.world.settings == Settings()
    problem = step.world.settings_problem
    assert problem
    assert "enabled: expected a bool (and 1 more)" in problem.message
    (first, second) = answers(step.effects)
    assert first == second
    assert first.message == "x.toml: enabled: expected a bool; y.toml: what"
    assert reload.take(step.world, Settings()).world.settings_problem is None


def test_every_live_setting_exists() -> None:
    for key in reload.LIVE:
        value: object = Settings()
        for name in key.split("."):
            value = getattr(value, name)


@pytest.mark.parametrize("off", [Settings(enabled=False), Settings(rollout=Rollout(percent=0))])
def test_switched_off_all_services_stop_and_switched_on_it_begins_anew(off: Settings) -> None:
    running = worlds.running(builders.service("a"), a=ServicePhase.READY)
    stopped = worlds.tell(replace(running, providers=("udev",)), ev.SettingsLoaded(off))
    assert "SignalService" in worlds.kinds(stopped)
    idle = replace(builders.world(settings=off), providers=("udev",))
    begun = worlds.tell(idle, ev.SettingsLoaded(Settings()))
    assert begun.effects == (fx.ListSources("udev"),)
    assert begun.world.awaited == {"udev"}


def test_a_changed_list_stops_and_starts_exactly_what_it_must() -> None:
    services = (builders.service("a"), builders.service("b", requires=["a"]))
    world = worlds.running(
        *services, builders.service("c"), a=ServicePhase.READY, b=ServicePhase.READY
    )
    world = worlds.change(world, "c", phase=ServicePhase.READY)
    denied = worlds.tell(world, ev.SettingsLoaded(Settings(rollout=Rollout(deny=("b",)))))
    signalled = [e.service for e in denied.effects if isinstance(e, fx.SignalService)]
    assert signalled == ["b"]
    idle = worlds.change(denied.world, "b", phase=ServicePhase.IDLE)
    allowed = worlds.tell(idle, ev.SettingsLoaded(Settings()))
    created = [e.plan.service for e in allowed.effects if isinstance(e, fx.CreateService)]
    assert created == ["b"]
