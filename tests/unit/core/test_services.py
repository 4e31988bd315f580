"""What is done when something about one service is reported."""

from dataclasses import replace
from typing import Any

import pytest

from extsloader.core import services
from extsloader.core.step import Step
from extsloader.core.supervision import FACTS, Fact
from extsloader.model import effects as fx
from extsloader.model import events as ev
from extsloader.model.errors import IllegalTransitionError
from extsloader.model.events import Cause, CauseKind, TimerId, TimerKind
from extsloader.model.ids import ServiceName
from extsloader.model.manifest import (
    Health,
    ProbeKind,
    Readiness,
    Restart,
    RestartPolicy,
    Service,
    Stop,
)
from extsloader.model.reasons import Code, Problem
from extsloader.model.world import ServicePhase as P
from extsloader.model.world import World
from tests.fakes import builders, worlds

A = ServiceName("a")
CRASH = Cause(CauseKind.CODE, 7)
CLEAN = Cause(CauseKind.CODE, 0)
NO = Problem(Code.RUNTIME, "cannot start a: no such file")
RUN = 1


def one(phase: P, spec: Service | None = None, **fields: Any) -> World:
    """A world with one service in this phase, in its first run."""
    world = worlds.running(spec or builders.service("a", readiness=worlds.BY_TCP), a=phase)
    return worlds.change(world, "a", pid=7, **fields)


REPORTS: dict[Fact, services.Report | ev.TimerFired] = {
    Fact.CREATED: ev.ServiceCreated(A, RUN, 7),
    Fact.ADOPTED: ev.ServiceCreated(A, RUN, 7, running=True),
    Fact.STARTED: ev.ServiceStarted(A, RUN),
    Fact.READY: ev.ServiceNotified(A, RUN),
    Fact.LATE: ev.TimerFired(TimerId(TimerKind.READINESS, A)),
    Fact.FAILED: ev.ServiceFailed(A, RUN, NO),
    Fact.EXITED: ev.ServiceExited(A, RUN, CRASH),
    Fact.OVERSTAYED: ev.TimerFired(TimerId(TimerKind.GRACE, A)),
    Fact.REMOVED: ev.ServiceRemoved(A, RUN),
    Fact.DUE: ev.TimerFired(TimerId(TimerKind.BACK_OFF, A)),
    Fact.UNHEALTHY: ev.ServiceChecked(A, RUN, ready=False, detail="HTTP status 500"),
}
WATCHED = Health(kind=ProbeKind.HTTP, port=80, path="/", failures=1, interval=5, timeout=3)


def report(world: World, fact: Fact, now: float = 0.0) -> Step:
    """The same fact as the machine or a timer tells it."""
    event = REPORTS[fact]
    if isinstance(event, ev.TimerFired):
        return services.fire(world, event.timer, builders.moment(now))
    return services.take(world, event, builders.moment(now))


def timer(kind: TimerKind, seconds: float) -> fx.SetTimer:
    return fx.SetTimer(TimerId(kind, A), seconds)


def orders(step: Step) -> list[fx.Effect]:
    """Without the timers that are forgotten, as those that do not run may be."""
    return [effect for effect in step.effects if not isinstance(effect, fx.CancelTimer)]


def forgotten(step: Step) -> set[TimerKind]:
    return {e.timer.kind for e in step.effects if isinstance(e, fx.CancelTimer)}


@pytest.mark.parametrize(("phase", "fact"), [key for key in FACTS if key[1] in REPORTS])
def test_each_fact_leads_where_the_table_says(phase: P, fact: Fact) -> None:
    world = one(phase)
    spec = replace(worlds.state(world, "a").spec, health=WATCHED)
    world = worlds.change(world, "a", spec=spec)
    assert worlds.state(report(world, fact).world, "a").phase is FACTS[phase, fact]


LET_PASS = {
    *((phase, Fact.READY) for phase in P),  # sd_notify(3) allows to repeat it
    *((phase, fact) for phase in P for fact in (Fact.LATE, Fact.OVERSTAYED, Fact.DUE)),
    (P.REMOVING, Fact.EXITED),  # the removal itself ended it
    *((phase, Fact.UNHEALTHY) for phase in P if phase is not P.STARTED),  # asked too early
}


@pytest.mark.parametrize("phase", P)
@pytest.mark.parametrize("fact", REPORTS)
def test_a_fact_that_the_table_does_not_know_changes_nothing_or_is_our_bug(
    phase: P, fact: Fact
) -> None:
    world = one(phase)
    if (phase, fact) in FACTS or (phase, fact) == (P.REMOVING, Fact.REMOVED):
        return
    if (phase, fact) == (P.STARTED, Fact.UNHEALTHY):
        return  # an answer about readiness
    if (phase, fact) in LET_PASS:
        assert report(world, fact) == Step(world)
    else:
        with pytest.raises(IllegalTransitionError):
            report(world, fact)


@pytest.mark.parametrize("run", [0, 2])
def test_a_report_about_another_run_changes_nothing(run: int) -> None:
    world = one(P.STARTING)
    assert services.take(world, ev.ServiceStarted(A, run), builders.moment()) == Step(world)


def test_a_report_about_a_service_that_nobody_knows_changes_nothing() -> None:
    world = one(P.STARTING)
    ghost = ServiceName("ghost")
    assert services.take(world, ev.ServiceStarted(ghost, RUN), builders.moment()) == Step(world)
    timer = TimerId(TimerKind.GRACE, ghost)
    assert services.fire(world, timer, builders.moment()) == Step(world)


def test_a_new_run_remembers_nothing_of_the_last_one() -> None:
    world = one(P.DUE, ready_at=5.0, notified=True, ended=CRASH, checks=3, detail="refused")
    step = services.create(world, worlds.state(world, "a"), builders.moment())
    state = worlds.state(step.world, "a")
    assert state.phase is P.CREATING
    assert (state.run, state.checks, state.detail) == (2, 0, "")
    assert (state.ready_at, state.notified, state.ended) == (None, False, None)
    assert state.plan is not None
    assert step.effects == (fx.CreateService(state.plan, 2),)


def test_a_start_is_about_the_run_that_was_created() -> None:
    world = one(P.CREATED)
    step = services.start(world, worlds.state(world, "a"), builders.moment())
    assert worlds.state(step.world, "a").phase is P.STARTING
    assert step.effects == (fx.StartService(A, RUN),)


def test_a_service_without_a_plan_cannot_be_created_nor_removed_from_the_machine() -> None:
    world = one(P.STARTED, plan=None)
    again = services.create(world, worlds.state(world, "a"), builders.moment())
    assert (worlds.phases(again.world)["a"], again.effects) == ("parked", ())
    with pytest.raises(IllegalTransitionError, match="has no plan"):
        report(world, Fact.EXITED)


def test_what_was_never_made_is_removed_without_an_order() -> None:
    world = one(P.PARKED, plan=None)
    step = services.remove(world, worlds.state(world, "a"), builders.moment())
    assert worlds.state(step.world, "a").phase is P.IDLE
    assert not step.effects


def test_limits_that_the_kernel_reduced_are_kept() -> None:
    world = one(P.CREATING)
    event = ev.ServiceCreated(A, RUN, 9, reduced=("no io limits",))
    state = worlds.state(services.take(world, event, builders.moment()).world, "a")
    assert (state.pid, state.granted) == (9, ("no io limits",))


def test_a_service_that_runs_already_is_waited_for_as_if_it_had_just_started() -> None:
    step = report(one(P.CREATING), Fact.ADOPTED)
    assert worlds.state(step.world, "a").phase is P.STARTED
    assert worlds.kinds(step) == ["SetTimer", "CheckReady"]


@pytest.mark.parametrize(("ready", "phase"), [(True, P.READY), (False, P.STARTED)])
def test_a_notifying_service_that_runs_already_may_have_said_ready_to_our_earlier_life(
    phase: P, *, ready: bool
) -> None:
    world = one(P.CREATING, builders.service("a", readiness=worlds.BY_NOTIFY))
    event = ev.ServiceCreated(A, RUN, 7, running=True, ready=ready)
    assert worlds.state(services.take(world, event, builders.moment()).world, "a").phase is phase


@pytest.mark.parametrize(
    ("readiness", "expected"),
    [
        (Readiness(seconds=3), [timer(TimerKind.DELAY, 3)]),
        (worlds.BY_NOTIFY, [timer(TimerKind.READINESS, 30)]),
        (
            worlds.BY_TCP,
            [timer(TimerKind.READINESS, 30), fx.CheckReady(A, RUN, worlds.BY_TCP)],
        ),
    ],
)
def test_each_kind_of_readiness_is_waited_for(
    readiness: Readiness, expected: list[fx.Effect]
) -> None:
    spec = builders.service("a", readiness=readiness)
    assert orders(report(one(P.STARTING, spec), Fact.STARTED)) == expected


def test_without_readiness_a_started_service_is_ready() -> None:
    step = report(one(P.STARTING, builders.service("a")), Fact.STARTED, now=5)
    state = worlds.state(step.world, "a")
    assert (state.phase, state.ready_at, state.ready_once) == (P.READY, 5, True)
    assert not orders(step)


def test_ready_may_overtake_started() -> None:
    spec = builders.service("a", readiness=worlds.BY_NOTIFY)
    step = report(one(P.STARTING, spec), Fact.READY)
    assert worlds.state(report(step.world, Fact.STARTED).world, "a").phase is P.READY


def test_a_delay_makes_ready() -> None:
    step = services.fire(one(P.STARTED), TimerId(TimerKind.DELAY, A), builders.moment())
    assert worlds.state(step.world, "a").phase is P.READY


def test_an_unready_service_is_asked_again_at_growing_intervals() -> None:
    world, pauses = one(P.STARTED), []
    for _ in range(9):
        said = ev.ServiceChecked(A, RUN, ready=False, detail="connection refused")
        step = services.take(world, said, builders.moment())
        world = step.world
        pauses += [effect.delay for effect in step.effects if isinstance(effect, fx.SetTimer)]
    assert pauses == pytest.approx([0.02, 0.04, 0.08, 0.16, 0.2, 0.2, 0.2, 0.2, 0.2])
    assert worlds.state(world, "a").detail == "connection refused"
    again = services.fire(world, TimerId(TimerKind.CHECK, A), builders.moment())
    assert again == Step(world, (fx.CheckReady(A, RUN, worlds.BY_TCP),))


def test_a_check_by_a_process_of_its_own_is_made_less_often() -> None:
    asked = Readiness(kind=ProbeKind.EXEC, command=("/bin/ask",))
    world = one(P.STARTED, builders.service("a", readiness=asked), checks=9)
    step = services.take(world, ev.ServiceChecked(A, RUN, ready=False), builders.moment())
    assert [e.delay for e in step.effects if isinstance(e, fx.SetTimer)] == [1.0]


def test_a_good_check_makes_ready_and_forgets_the_deadline() -> None:
    step = services.take(one(P.STARTED), ev.ServiceChecked(A, RUN, ready=True), builders.moment())
    assert worlds.state(step.world, "a").phase is P.READY
    assert forgotten(step) == {TimerKind.CHECK, TimerKind.DELAY, TimerKind.READINESS}


def test_the_answer_to_a_check_that_nobody_waits_for_changes_nothing() -> None:
    world = one(P.STOPPING)
    said = ev.ServiceChecked(A, RUN, ready=True)
    assert services.take(world, said, builders.moment()) == Step(world)


def test_an_end_during_a_start_that_fails_is_not_forgotten() -> None:
    step = report(one(P.STARTING, ended=CRASH), Fact.FAILED)
    assert worlds.state(step.world, "a").last_exit == CRASH


@pytest.mark.parametrize(
    ("detail", "says"),
    [("refused", "within 30 s: refused"), ("", "within 30 s: no word by tcp")],
)
def test_a_late_service_is_stopped_and_says_why(detail: str, says: str) -> None:
    step = report(one(P.STARTED, detail=detail), Fact.LATE)
    state = worlds.state(step.world, "a")
    assert state.problem is not None
    assert state.problem.code is Code.READINESS
    assert state.problem.message == f"cannot call a ready {says}"
    assert state.after_removal is P.BACKING_OFF
    assert orders(step) == [fx.SignalService(A, RUN, "SIGTERM"), timer(TimerKind.GRACE, 10)]


def test_a_service_that_is_never_ready_is_given_up_even_if_its_deadline_is_long() -> None:
    slow = Readiness(kind=worlds.BY_TCP.kind, port=1, timeout=120)
    spec = builders.service("a", readiness=slow, restart=Restart(limit=3, reset_after=60))
    state = worlds.state(report(one(P.STARTED, spec, failures=3), Fact.LATE, now=120).world, "a")
    assert state.after_removal is P.PARKED


def test_stopping_is_polite_first_and_then_not() -> None:
    spec = builders.service("a", stop=Stop(signal="SIGINT", grace=4))
    world = one(P.READY, spec)
    asked = services.stop(world, worlds.state(world, "a"), builders.moment())
    assert orders(asked) == [fx.SignalService(A, RUN, "SIGINT"), timer(TimerKind.GRACE, 4)]
    killed = report(asked.world, Fact.OVERSTAYED)
    assert killed.effects == (
        fx.KillService(A, RUN),
        timer(TimerKind.GRACE, services.KILL_GRACE),
    )
    removed = report(killed.world, Fact.OVERSTAYED)
    assert isinstance(removed.effects[-1], fx.RemoveService)


def test_an_end_during_the_start_waits_for_the_runtime() -> None:
    step = report(one(P.STARTING), Fact.EXITED)
    assert not step.effects
    ended = report(step.world, Fact.STARTED)
    assert worlds.state(ended.world, "a").last_exit == CRASH
    assert worlds.kinds(ended)[-1] == "RemoveService"


def test_an_end_that_was_asked_for_is_no_failure() -> None:
    step = report(one(P.STOPPING, after_removal=P.IDLE, failures=0), Fact.EXITED)
    state = worlds.state(step.world, "a")
    assert state.plan is not None
    assert (state.failures, state.problem, state.pid) == (0, None, None)
    assert orders(step) == [fx.RemoveService(state.plan, RUN, unmount=True)]
    assert forgotten(step) == set(services.TIMERS)


@pytest.mark.parametrize(
    ("policy", "cause", "after"),
    [
        (RestartPolicy.ALWAYS, CLEAN, P.BACKING_OFF),
        (RestartPolicy.ALWAYS, CRASH, P.BACKING_OFF),
        (RestartPolicy.ON_FAILURE, CLEAN, P.FINISHED),
        (RestartPolicy.ON_FAILURE, CRASH, P.BACKING_OFF),
        (RestartPolicy.NEVER, CLEAN, P.FINISHED),
        (RestartPolicy.NEVER, CRASH, P.PARKED),
    ],
)
def test_the_policy_says_what_an_end_means(policy: RestartPolicy, cause: Cause, after: P) -> None:
    spec = builders.service("a", restart=Restart(policy=policy))
    world = one(P.READY, spec, failures=2)
    step = services.take(world, ev.ServiceExited(A, RUN, cause), builders.moment())
    state = worlds.state(step.world, "a")
    assert state.after_removal is after
    assert (state.problem is None) == (after is P.FINISHED)
    remove = step.effects[-1]
    assert isinstance(remove, fx.RemoveService)
    assert not remove.unmount
    assert worlds.state(report(step.world, Fact.REMOVED).world, "a").phase is after


@pytest.mark.parametrize(
    ("cause", "code", "says"),
    [
        (CRASH, Code.EXIT, "exit code 7"),
        (Cause(CauseKind.OOM, 9), Code.RESOURCE, "it used more memory than its limit"),
    ],
)
def test_an_end_is_described(cause: Cause, code: Code, says: str) -> None:
    step = services.take(one(P.READY), ev.ServiceExited(A, RUN, cause), builders.moment())
    problem = worlds.state(step.world, "a").problem
    assert problem is not None
    assert (problem.code, problem.message) == (code, f"cannot keep a running: {says}")


def test_the_back_off_begins_when_the_service_is_removed() -> None:
    spec = builders.service("a", restart=Restart(base=8, jitter=0))
    ended = report(one(P.READY, spec), Fact.EXITED, now=100)
    removed = report(ended.world, Fact.REMOVED, now=103)
    assert removed.effects == (timer(TimerKind.BACK_OFF, 5),)
    late = report(ended.world, Fact.REMOVED, now=109)
    assert late.effects == (timer(TimerKind.BACK_OFF, 0),)


@pytest.mark.parametrize(("ran", "failures"), [(59, 6), (60, 1)])
def test_a_long_good_run_starts_the_count_anew(ran: float, failures: int) -> None:
    world = one(P.READY, failures=5, ready_at=100.0)
    state = worlds.state(report(world, Fact.EXITED, now=100 + ran).world, "a")
    assert state.failures == failures


@pytest.mark.parametrize(
    ("limit", "after"), [(3, P.PARKED), (4, P.BACKING_OFF), (0, P.BACKING_OFF)]
)
def test_after_too_many_failures_in_a_row_it_is_given_up(limit: int, after: P) -> None:
    spec = builders.service("a", restart=Restart(limit=limit))
    state = worlds.state(report(one(P.READY, spec, failures=3), Fact.EXITED).world, "a")
    assert state.after_removal is after
    if after is P.PARKED:
        assert state.problem is not None
        assert state.problem.message.endswith("exit code 7; gave up after 3 failures in a row")


def test_a_service_that_cannot_be_created_is_removed_and_tried_again() -> None:
    step = report(one(P.CREATING), Fact.FAILED)
    state = worlds.state(step.world, "a")
    assert (state.problem, state.after_removal) == (NO, P.BACKING_OFF)
    assert worlds.kinds(step)[-1] == "RemoveService"


def test_what_a_removal_leaves_behind_is_remembered_until_one_succeeds() -> None:
    left = Problem(Code.MOUNT, "cannot unmount it: busy")
    world = one(P.REMOVING, after_removal=P.PARKED)
    step = services.take(world, ev.ServiceRemoved(A, RUN, left), builders.moment())
    assert step.world.leftovers == {A: left}
    assert not step.effects
    again = replace(world, leftovers=step.world.leftovers)
    undone = services.take(again, ev.ServiceRemoved(A, RUN, None), builders.moment())
    assert not undone.world.leftovers


def test_a_removal_for_good_takes_the_mounts_too() -> None:
    world = one(P.BACKING_OFF, failures=4, after_removal=P.BACKING_OFF)
    step = services.remove(world, worlds.state(world, "a"), builders.moment())
    remove = step.effects[-1]
    assert isinstance(remove, fx.RemoveService)
    assert remove.unmount
    assert TimerKind.BACK_OFF in forgotten(step)
    assert worlds.state(report(step.world, Fact.REMOVED).world, "a").phase is P.IDLE
