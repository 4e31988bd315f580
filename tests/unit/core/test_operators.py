"""What operators ask for is done, answered and written down."""

from dataclasses import replace
from typing import Any

import pytest

from extsloader.core import engine, operators
from extsloader.core.step import Step
from extsloader.model import effects as fx
from extsloader.model.control import Answer, Result, Verb
from extsloader.model.events import Asked, TimerId, TimerKind
from extsloader.model.history import History, Hold
from extsloader.model.ids import ServiceName
from extsloader.model.reasons import Code, Problem
from extsloader.model.settings import Rollout, Settings
from extsloader.model.world import ServicePhase as P
from extsloader.model.world import World
from tests.fakes import builders, worlds

A = ServiceName("a")
NO = Problem(Code.BUNDLE, "cannot plan a: its bundle is bad", "build it anew")


def one(phase: P, **fields: Any) -> World:
    world = worlds.running(builders.service("a"), builders.service("b", requires=["a"]))
    return replace(worlds.change(world, "a", phase=phase, run=1), **fields)


def ask(world: World, verb: Verb, service: str = "a", uid: int = 0) -> Step:
    return engine.step(world, Asked(verb, uid, service, 7), builders.moment(3))


def told(step: Step) -> Answer:
    (reply,) = [effect for effect in step.effects if isinstance(effect, fx.Reply)]
    assert reply.request == 7
    return reply.answer


def held(hold: Hold) -> History:
    return History(holds={A: hold})


def phase(step: Step) -> P:
    return worlds.state(step.world, "a").phase


@pytest.mark.parametrize("verb", Verb)
def test_nobody_but_root_changes_anything_and_the_attempt_is_written_down(verb: Verb) -> None:
    world = one(P.READY)
    step = ask(world, verb, uid=1000)
    assert told(step).result is Result.DENIED
    assert step.world.services is world.services
    assert step.world.history.holds == {}
    record = next(effect for effect in step.effects if isinstance(effect, fx.Record))
    change = record.change
    assert (change.subject, change.old, change.new) == (
        "operator uid 1000",
        f"{verb} a",
        "denied",
    )
    assert step.world.history.changes["operator"] == (change,)


def test_an_agent_that_stops_takes_no_orders() -> None:
    assert told(ask(one(P.READY, stopping=True), Verb.START)).result is Result.REFUSED


@pytest.mark.parametrize("name", ["ghost", "", "../x", "a\x1b[2J"])
def test_an_unknown_service_is_said_so(name: str) -> None:
    answer = told(ask(one(P.READY), Verb.STOP, name))
    assert answer.result is Result.UNKNOWN
    assert answer.message.isprintable()


def test_a_stopped_service_stops_with_its_users_and_the_disk_knows_first() -> None:
    world = worlds.change(one(P.READY), "b", phase=P.READY)
    step = ask(world, Verb.STOP)
    answer = told(step)
    assert answer.result is Result.ACCEPTED
    assert answer.message == "a stops until it is started or the device boots, and with it b"
    (saved,) = [effect for effect in step.effects if isinstance(effect, fx.SaveHistory)]
    assert saved.history.holds == {A: Hold.STOPPED}
    signalled = [e.service for e in step.effects if isinstance(e, fx.SignalService)]
    assert signalled == ["b"], "users first"


def test_a_second_request_for_the_same_finds_nothing_to_do() -> None:
    for verb in (Verb.STOP, Verb.PAUSE, Verb.RESTART):
        first = ask(one(P.READY), verb)
        assert told(first).result is Result.ACCEPTED
        assert told(ask(first.world, verb)).result is Result.ALREADY


def test_a_started_service_may_run_again() -> None:
    step = ask(one(P.IDLE, history=held(Hold.STOPPED)), Verb.START)
    assert told(step).result is Result.ACCEPTED
    assert step.world.history.holds == {}
    assert phase(step) is P.CREATING


@pytest.mark.parametrize("before", [P.PARKED, P.FINISHED, P.BACKING_OFF])
@pytest.mark.parametrize("verb", [Verb.START, Verb.RESTART])
def test_who_gave_up_ended_or_waits_is_tried_now(before: P, verb: Verb) -> None:
    world = worlds.change(one(before), "a", failures=9, problem=NO)
    step = ask(world, verb)
    assert told(step) == Answer(result=Result.ACCEPTED, message="a is tried now")
    assert phase(step) is P.CREATING
    state = worlds.state(step.world, "a")
    assert (state.failures, state.problem) == (0, None)
    assert fx.CancelTimer(TimerId(TimerKind.BACK_OFF, A)) in step.effects


@pytest.mark.parametrize("before", [P.READY, P.CREATING, P.STOPPING])
def test_starting_what_is_on_its_way_is_nothing_to_do(before: P) -> None:
    assert told(ask(one(before), Verb.START)).result is Result.ALREADY


@pytest.mark.parametrize("verb", [Verb.START, Verb.RESTART])
def test_what_configuration_or_a_pause_holds_is_not_started(verb: Verb) -> None:
    denied = one(P.IDLE, settings=Settings(rollout=Rollout(deny=("a",))))
    assert "rollout.deny names it" in told(ask(denied, verb)).message
    paused = one(P.IDLE, history=held(Hold.PAUSED))
    assert told(ask(paused, verb)).hint == "extsloaderctl resume a"


def test_a_service_with_a_bad_bundle_cannot_be_started() -> None:
    world = worlds.change(one(P.PARKED), "a", plan=None, problem=NO)
    assert told(ask(world, Verb.START)) == Answer(
        result=Result.REFUSED, message=NO.message, hint=NO.hint
    )


@pytest.mark.parametrize("before", [P.READY, P.STARTED])
def test_a_restart_keeps_the_mounts_and_the_users(before: P) -> None:
    step = ask(worlds.change(one(before), "b", phase=P.READY), Verb.RESTART)
    state = worlds.state(step.world, "a")
    assert (state.phase, state.after_removal) == (P.STOPPING, P.DUE)
    assert worlds.phases(step.world)["b"] == "ready"


def test_a_pause_is_stronger_than_a_stop_and_ends_by_resume_alone() -> None:
    paused = ask(one(P.IDLE, history=held(Hold.STOPPED)), Verb.PAUSE)
    assert paused.world.history.holds == {A: Hold.PAUSED}
    assert told(ask(paused.world, Verb.START)).result is Result.REFUSED
    resumed = ask(paused.world, Verb.RESUME)
    assert phase(resumed) is P.CREATING
    assert told(ask(resumed.world, Verb.RESUME)).result is Result.ALREADY
    stopped = one(P.IDLE, history=held(Hold.STOPPED))
    assert told(ask(stopped, Verb.RESUME)).hint == "extsloaderctl start a"


def test_a_rescan_asks_every_provider_unless_the_agent_is_off() -> None:
    world = replace(builders.world(), providers=("udev", "files"))
    step = ask(world, Verb.RESCAN, "")
    assert fx.ListSources("udev") in step.effects
    assert fx.ListSources("files") in step.effects
    off = replace(world, settings=Settings(enabled=False))
    assert told(ask(off, Verb.RESCAN, "")).result is Result.REFUSED


def test_a_reload_is_written_down_when_it_begins() -> None:
    step = operators.ask(one(P.READY), Asked(Verb.RELOAD, 0), builders.moment())
    assert [type(effect) for effect in step.effects] == [fx.Record, fx.LoadSettings]
