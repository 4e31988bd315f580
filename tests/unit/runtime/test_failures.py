"""Every order that the core waits for has an event that ends it badly."""

from typing import get_args

import pytest

from extsloader.model import effects as fx
from extsloader.model import events as ev
from extsloader.model.control import Answer, Result
from extsloader.model.effects import Effect
from extsloader.model.events import Event, TimerId, TimerKind
from extsloader.model.history import History
from extsloader.model.ids import ServiceName
from extsloader.model.manifest import Readiness
from extsloader.model.reasons import Code, Problem
from extsloader.model.status import Change
from extsloader.model.trust import Memory
from extsloader.runtime.failures import answer
from tests.fakes import builders, worlds

NO = Problem(Code.RUNTIME, "cannot do it: no such file")
A = ServiceName("a")
STICK = builders.source()
IMAGE = builders.stored(builders.service("a"))
PLAN = worlds.state(worlds.running(builders.service("a")), "a").plan
assert PLAN is not None

ANSWERS: list[tuple[Effect, Event]] = [
    (fx.ListSources("udev"), ev.ListingFailed("udev", NO)),
    (fx.Probe(STICK), ev.Refused(STICK.id, NO)),
    (fx.Verify(STICK), ev.Refused(STICK.id, NO)),
    (fx.MountImage(IMAGE), ev.ImageFailed(IMAGE.digest, NO)),
    (fx.UnmountImage(IMAGE.digest), ev.ImageUnmounted(IMAGE.digest, NO)),
    (fx.CheckImage(IMAGE.digest), ev.ImageChecked(IMAGE.digest, NO)),
    (fx.CreateService(PLAN, 3), ev.ServiceFailed(A, 3, NO)),
    (fx.StartService(A, 3), ev.ServiceFailed(A, 3, NO)),
    (
        fx.CheckReady(A, 3, Readiness()),
        ev.ServiceChecked(A, 3, ready=False, detail="cannot do it: no such file"),
    ),
    (fx.LoadSettings(), ev.SettingsRefused(("cannot do it: no such file",))),
    (fx.SaveHistory(History()), ev.HistorySaved(NO)),
    (fx.RemoveService(PLAN, 3, unmount=True), ev.ServiceRemoved(A, 3, NO)),
    (fx.MeasureImage(IMAGE.digest), ev.ImageMeasured(IMAGE.digest, NO)),
    (fx.ReadLoad(), ev.LoadRead(None)),
]
OTHERS: list[Effect] = [
    fx.DropImage(IMAGE.digest),
    fx.SignalService(A, 3, "SIGTERM"),
    fx.KillService(A, 3),
    fx.CallOffCreation(A),
    fx.CancelHelper(STICK.id),
    fx.SetTimer(TimerId(TimerKind.CHOOSE), 1),
    fx.CancelTimer(TimerId(TimerKind.CHOOSE)),
    fx.Record(Change(subject="agent", old="a", new="b")),
    fx.SaveMemory(Memory()),
    fx.SaveClock(1.0),
    fx.Finish(),
    fx.KeepSocket(),
    fx.Reply(1, Answer(result=Result.ALREADY, message="nothing has changed")),
]


@pytest.mark.parametrize(("effect", "event"), ANSWERS)
def test_an_order_that_fails_is_answered(effect: Effect, event: Event) -> None:
    assert answer(effect, NO) == event


@pytest.mark.parametrize("effect", OTHERS)
def test_the_failure_of_an_order_without_an_answer_is_a_surprise(effect: Effect) -> None:
    assert answer(effect, NO) == ev.EffectFailed(NO)


def test_no_order_was_forgotten_here() -> None:
    assert {type(e) for e, _ in ANSWERS} | {type(e) for e in OTHERS} == set(get_args(Effect))


def test_a_check_that_can_never_succeed_says_so() -> None:
    never = Problem(Code.READINESS, "cannot run /nope: no such file")
    event = answer(fx.CheckReady(A, 3, Readiness()), never)
    assert event == ev.ServiceChecked(A, 3, ready=False, detail=never.message, hopeless=True)
