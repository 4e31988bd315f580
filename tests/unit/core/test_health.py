"""The probes of a ready service."""

from dataclasses import replace

from extsloader.core import health, services, view
from extsloader.core.step import Step
from extsloader.model import effects as fx
from extsloader.model import events as ev
from extsloader.model.events import TimerId, TimerKind
from extsloader.model.ids import ServiceName
from extsloader.model.manifest import Health, HealthAction, ProbeKind, Readiness, Restart
from extsloader.model.reasons import Code
from extsloader.model.world import ServicePhase as P
from extsloader.model.world import World
from tests.fakes import builders, worlds

A = ServiceName("a")
PROBE = Health(kind=ProbeKind.HTTP, port=80, path="/ok", interval=5, timeout=3, failures=2)
NEXT = fx.SetTimer(TimerId(TimerKind.HEALTH, A), 5)


def ready(probe: Health | None = PROBE, **fields: object) -> World:
    spec = builders.service("a", health=probe, **fields)
    return worlds.change(worlds.running(spec, a=P.READY), "a", ready_at=0.0, ready_once=True)


def answer(world: World, *answers: bool, now: float = 1.0) -> Step:
    step = Step(world)
    for is_ready in answers:
        report = ev.ServiceChecked(A, 1, ready=is_ready, detail="" if is_ready else "status 500")
        step = services.take(step.world, report, builders.moment(now))
    return step


def test_the_first_probe_comes_an_interval_after_the_service_became_ready() -> None:
    starting = worlds.running(builders.service("a", health=PROBE), a=P.STARTING)
    step = services.take(starting, ev.ServiceStarted(A, 1), builders.moment())
    assert worlds.state(step.world, "a").phase is P.READY
    assert NEXT in step.effects


def test_a_probe_is_asked_by_the_means_of_readiness_with_a_deadline_of_its_own() -> None:
    step = services.fire(ready(), NEXT.timer, builders.moment())
    by = Readiness(kind=ProbeKind.HTTP, port=80, path="/ok")
    assert step.effects == (fx.CheckReady(A, 1, by, 3),)


def test_each_answer_leads_to_the_next_question() -> None:
    assert answer(ready(), True).effects == (NEXT,)
    assert answer(ready(), False).effects == (NEXT,)


def test_a_good_answer_forgives_the_bad_ones_before_it() -> None:
    step = answer(ready(), False, True, False)
    assert worlds.state(step.world, "a").unhealthy == 1
    assert worlds.state(step.world, "a").phase is P.READY


def test_too_many_failures_in_a_row_restart_the_service_and_say_why() -> None:
    step = answer(ready(), False, False)
    state = worlds.state(step.world, "a")
    assert (state.phase, state.after_removal, state.failures) == (P.STOPPING, P.BACKING_OFF, 1)
    assert state.problem is not None
    assert state.problem.code is Code.HEALTH
    assert state.problem.message == ("cannot call a healthy: 2 probes in a row failed: status 500")
    kinds = worlds.kinds(step)
    assert "SignalService" in kinds
    assert fx.CancelTimer(NEXT.timer) in step.effects


def test_a_service_that_is_never_well_for_long_is_given_up_at_the_limit() -> None:
    world = worlds.change(ready(restart=Restart(limit=1)), "a", failures=1)
    assert worlds.state(answer(world, False, False).world, "a").after_removal is P.PARKED


def test_a_service_may_run_on_and_only_be_told_to_be_unwell() -> None:
    probe = replace(PROBE, action=HealthAction.DEGRADE)
    sick = answer(ready(probe), False, False)
    assert worlds.state(sick.world, "a").phase is P.READY
    assert sick.effects == (NEXT,)
    assert view.judge(sick.world) == ("degraded", "a is unhealthy")
    shown = view.take_snapshot(sick.world, builders.moment()).services[0]
    assert (shown.state, shown.code) == ("ready", Code.HEALTH)
    assert "2 probes in a row failed" in shown.reason
    well = answer(sick.world, True)
    assert view.judge(well.world)[0] == "ready"
    assert worlds.state(well.world, "a").problem is None


def test_a_service_without_probes_is_asked_nothing() -> None:
    state = worlds.state(ready(None), "a")
    assert health.ask(state) == health.ask_later(state) == health.stop_asking(state) == ()
    assert not health.is_sick(replace(state, unhealthy=9))
