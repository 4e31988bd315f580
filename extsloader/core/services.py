"""What happens to one service when something about it is reported."""

from dataclasses import replace

from extsloader.core import backoff, health
from extsloader.core.step import Step, leave, put
from extsloader.core.supervision import LEADS_TO, Fact, Order, next_phase
from extsloader.model.effects import (
    CallOffCreation,
    CancelTimer,
    CheckReady,
    CreateService,
    Effect,
    KillService,
    RemoveService,
    SetTimer,
    SignalService,
    StartService,
)
from extsloader.model.errors import IllegalTransitionError
from extsloader.model.events import (
    Cause,
    CauseKind,
    ServiceChecked,
    ServiceCreated,
    ServiceExited,
    ServiceFailed,
    ServiceNotified,
    ServiceRemoved,
    ServiceStarted,
    TimerId,
    TimerKind,
)
from extsloader.model.ids import ServiceName
from extsloader.model.machine import Moment
from extsloader.model.manifest import ProbeKind, Restart, RestartPolicy
from extsloader.model.reasons import Code, Problem
from extsloader.model.world import ServicePhase, ServiceState, World

Report = (
    ServiceCreated
    | ServiceStarted
    | ServiceNotified
    | ServiceChecked
    | ServiceExited
    | ServiceFailed
    | ServiceRemoved
)

CHECK_FIRST = 0.02  # seconds between the first readiness checks, doubling
CHECK_LAST = 0.2  # a look at a socket or a file costs nothing, and others wait for the answer
EXEC_LAST = 1.0  # a process in the container does cost something
KILL_GRACE = 10.0  # seconds that SIGKILL may take: a process in a stuck system call takes longer

TIMERS = (
    TimerKind.BACK_OFF,
    TimerKind.CHECK,
    TimerKind.DELAY,
    TimerKind.READINESS,
    TimerKind.GRACE,
)


def take(world: World, report: Report, moment: Moment) -> Step:
    """Apply a report about a service; one about an earlier run changes nothing."""
    state = world.services.get(report.service)
    if state is None or state.run != report.run:
        return Step(world)
    match report:
        case ServiceCreated():
            return _created(world, state, report, moment)
        case ServiceStarted():
            return _started(world, move(state, Fact.STARTED, moment), moment)
        case ServiceNotified():
            return _notified(world, state, moment)
        case ServiceChecked():
            return _checked(world, state, report, moment)
        case ServiceExited():
            return _exited(world, state, report.cause, moment)
        case ServiceFailed():
            failed = move(state, Fact.FAILED, moment)
            last = state.ended or state.last_exit
            failed = replace(failed, problem=report.problem, last_exit=last)
            return _remove(world, _fail(failed, moment))
        case ServiceRemoved():
            return _removed(world, state, report.problem, moment)


def fire(world: World, timer: TimerId, moment: Moment) -> Step:
    """A timer of a service ran out; one that the service has outrun changes nothing."""
    state = world.services.get(ServiceName(str(timer.subject)))
    if state is None:
        return Step(world)
    match timer.kind, state.phase:
        case TimerKind.BACK_OFF, ServicePhase.BACKING_OFF:
            return Step(store(world, move(state, Fact.DUE, moment)))
        case TimerKind.CHECK, ServicePhase.STARTED:
            return Step(world, (_check(state),))
        case TimerKind.DELAY, ServicePhase.STARTED:
            return _become_ready(world, state, moment)
        case TimerKind.READINESS, ServicePhase.STARTED:
            return _give_up_waiting(world, state, moment)
        case TimerKind.GRACE, ServicePhase.STOPPING:
            killing = move(state, Fact.OVERSTAYED, moment)
            return Step(store(world, killing), (_kill(state), _grace(state, KILL_GRACE)))
        case TimerKind.HEALTH, ServicePhase.READY:
            return Step(world, health.ask(state))
        case TimerKind.GRACE, ServicePhase.KILLING:
            return _remove(world, move(state, Fact.OVERSTAYED, moment))
        case _:
            return Step(world)


def create(world: World, state: ServiceState, moment: Moment) -> Step:
    """Begin a new run: make its container, whatever its dependencies do."""
    if state.plan is None:  # its bundle is as unusable as before it was held
        return Step(store(world, _enter(state, ServicePhase.PARKED, moment)))
    fresh = replace(
        _enter(state, LEADS_TO[Order.CREATE], moment),
        run=state.run + 1,
        ready_at=None,
        notified=False,
        ended=None,
        checks=0,
        detail="",
        unhealthy=0,
    )
    return Step(store(world, fresh), (CreateService(state.plan, fresh.run),))


def start(world: World, state: ServiceState, moment: Moment) -> Step:
    """Let its first instruction run: what it needs is there."""
    starting = _enter(state, LEADS_TO[Order.START], moment)
    return Step(store(world, starting), (StartService(state.spec.name, state.run),))


def stop(world: World, state: ServiceState, moment: Moment) -> Step:
    """Ask it politely; the grace timer asks less politely."""
    policy = state.spec.stop
    stopping = _enter(state, LEADS_TO[Order.STOP], moment)
    return Step(
        store(world, stopping),
        (
            *_cancel(state, TimerKind.CHECK, TimerKind.DELAY, TimerKind.READINESS),
            *health.stop_asking(state),
            SignalService(state.spec.name, state.run, policy.signal),
            _grace(state, policy.grace),
        ),
    )


def remove(world: World, state: ServiceState, moment: Moment) -> Step:
    """Take away what is left of it, its mounts included: it is not wanted any more."""
    cleared = replace(state, failures=0, after_removal=ServicePhase.IDLE)
    if cleared.plan is None:  # its bundle was unusable: nothing was ever made
        return Step(store(world, _enter(cleared, ServicePhase.IDLE, moment)))
    return _remove(world, _enter(cleared, LEADS_TO[Order.REMOVE], moment))


def move(state: ServiceState, fact: Fact, moment: Moment) -> ServiceState:
    """The state after a fact. Raises IllegalTransitionError."""
    return _enter(state, next_phase(state.phase, fact), moment)


def store(world: World, state: ServiceState) -> World:
    """The world with this state of the service."""
    return replace(world, services=put(world.services, state.spec.name, state))


def _created(world: World, state: ServiceState, report: ServiceCreated, moment: Moment) -> Step:
    fact = Fact.ADOPTED if report.running else Fact.CREATED
    created = replace(move(state, fact, moment), pid=report.pid, granted=report.reduced)
    if not report.running:
        return Step(store(world, created))
    return _started(world, replace(created, notified=report.ready), moment)


def _started(world: World, state: ServiceState, moment: Moment) -> Step:
    if state.ended is not None:
        return _exited(world, state, state.ended, moment)
    readiness = state.spec.readiness
    if state.notified or (readiness.kind is ProbeKind.DELAY and readiness.seconds == 0):
        return _become_ready(world, state, moment)
    waiting = replace(state, waiting_since=moment.now)
    return Step(store(world, waiting), _await_ready(state))


def _await_ready(state: ServiceState) -> tuple[Effect, ...]:
    readiness = state.spec.readiness
    name = state.spec.name
    if readiness.kind is ProbeKind.DELAY:
        return (SetTimer(TimerId(TimerKind.DELAY, name), readiness.seconds),)
    deadline = SetTimer(TimerId(TimerKind.READINESS, name), readiness.timeout)
    return (deadline,) if readiness.kind is ProbeKind.NOTIFY else (deadline, _check(state))


def _notified(world: World, state: ServiceState, moment: Moment) -> Step:
    match state.phase:
        case ServicePhase.STARTED:
            return _become_ready(world, state, moment)
        case ServicePhase.STARTING:
            return Step(store(world, replace(state, notified=True)))
        case _:
            return Step(world)  # services repeat READY=1, sd_notify(3) allows it


def _checked(world: World, state: ServiceState, report: ServiceChecked, moment: Moment) -> Step:
    if state.phase is ServicePhase.READY:
        probed = state if report.frozen else health.count(state, report)
        return _probed(world, probed, moment)
    if state.phase is not ServicePhase.STARTED:
        return Step(world)
    if report.ready:
        return _become_ready(world, state, moment)
    if report.hopeless:
        hopeless = replace(state, detail=report.detail)
        return _give_up_waiting(world, hopeless, moment, "it never will be")
    last = EXEC_LAST if state.spec.readiness.kind is ProbeKind.EXEC else CHECK_LAST
    pause = min(last, CHECK_FIRST * 2.0 ** min(state.checks, 10))
    waiting = replace(state, checks=state.checks + 1, detail=report.detail)
    timer = SetTimer(TimerId(TimerKind.CHECK, state.spec.name), pause)
    return Step(store(world, waiting), (timer,))


def _probed(world: World, state: ServiceState, moment: Moment) -> Step:
    """A health probe was answered: go on asking, unless it failed once too often."""
    if not health.is_to_restart(state):
        return Step(store(world, state), health.ask_later(state))
    sick = move(state, Fact.UNHEALTHY, moment)
    return stop(world, _fail(sick, moment), moment)


def _become_ready(world: World, state: ServiceState, moment: Moment) -> Step:
    ready = replace(
        move(state, Fact.READY, moment),
        ready_once=True,
        ready_at=moment.now,
        problem=None,
        detail="",
    )
    timers = _cancel(state, TimerKind.CHECK, TimerKind.DELAY, TimerKind.READINESS)
    return Step(store(world, ready), (*timers, *health.ask_later(ready)))


def _give_up_waiting(world: World, state: ServiceState, moment: Moment, hopeless: str = "") -> Step:
    readiness = state.spec.readiness
    detail = state.detail or f"no word by {readiness.kind}"
    when = f", {hopeless}" if hopeless else f" within {readiness.timeout:g} s"
    problem = Problem(
        Code.READINESS,
        f"cannot call {state.spec.name} ready{when}: {detail}",
        "correct readiness in its manifest"
        if hopeless
        else "look at the service's log, or raise readiness.timeout in its manifest",
    )
    late = replace(move(state, Fact.LATE, moment), problem=problem)
    return stop(world, _fail(late, moment), moment)


def _exited(world: World, state: ServiceState, cause: Cause, moment: Moment) -> Step:
    if state.phase is ServicePhase.STARTING:
        return Step(store(world, replace(state, ended=cause)))
    if state.phase is ServicePhase.REMOVING:
        return Step(world)  # the removal itself ended it
    ended = replace(move(state, Fact.EXITED, moment), last_exit=cause)
    if state.phase in (ServicePhase.STOPPING, ServicePhase.KILLING):
        return _remove(world, ended)  # what comes then was decided when the stop began
    return _remove(world, _judge(ended, moment))


def _judge(state: ServiceState, moment: Moment) -> ServiceState:
    """What the end of a service that nobody asked to end means."""
    clean = state.last_exit == Cause(CauseKind.CODE, 0)
    policy = state.spec.restart.policy
    if clean and policy is not RestartPolicy.ALWAYS:
        return replace(state, after_removal=ServicePhase.FINISHED, problem=None, failures=0)
    problem = _describe_end(state)
    failed = replace(state, problem=problem)
    if policy is RestartPolicy.NEVER:
        return replace(failed, after_removal=ServicePhase.PARKED)
    return _fail(failed, moment)


def _fail(state: ServiceState, moment: Moment) -> ServiceState:
    """Count a failure: back off, or give up at the limit."""
    restart = state.spec.restart
    ran = 0.0 if state.ready_at is None else moment.now - state.ready_at
    failures = 1 if ran >= restart.reset_after else state.failures + 1
    if restart.limit and failures > restart.limit:
        parked = replace(state, after_removal=ServicePhase.PARKED, failures=failures)
        return replace(parked, problem=_add_limit(state.problem, restart, state.spec.name))
    pause = backoff.delay(
        failures=failures,
        base=restart.base,
        cap=restart.cap,
        jitter=restart.jitter,
        dice=moment.dice,
    )
    return replace(
        state,
        after_removal=ServicePhase.BACKING_OFF,
        failures=failures,
        retry_at=moment.now + pause,
    )


def _remove(world: World, state: ServiceState) -> Step:
    if state.plan is None:
        raise IllegalTransitionError(f"{state.spec.name} has no plan and cannot exist")
    gone = replace(state, pid=None)
    order = RemoveService(state.plan, state.run, unmount=state.after_removal is ServicePhase.IDLE)
    return Step(store(world, gone), (*_cancel(state, *TIMERS), *health.stop_asking(state), order))


def _removed(world: World, state: ServiceState, problem: Problem | None, moment: Moment) -> Step:
    if state.phase is not ServicePhase.REMOVING:
        raise IllegalTransitionError(f"{state.spec.name} is {state.phase} and cannot be removed")
    removed = _enter(state, state.after_removal, moment)
    left = leave(store(world, removed), state.spec.name, problem)
    if removed.phase is not ServicePhase.BACKING_OFF:
        return Step(left)
    pause = max(0.0, state.retry_at - moment.now)
    return Step(left, (SetTimer(TimerId(TimerKind.BACK_OFF, state.spec.name), pause),))


def _describe_end(state: ServiceState) -> Problem:
    cause = state.last_exit
    hint = "look at the service's log"
    if cause is not None and cause.kind is CauseKind.OOM:
        return Problem(
            Code.RESOURCE,
            f"cannot keep {state.spec.name} running: it used more memory than its limit",
            "raise resources.memory in its manifest, or find its leak",
        )
    return Problem(Code.EXIT, f"cannot keep {state.spec.name} running: {cause}", hint)


def _add_limit(problem: Problem | None, restart: Restart, name: ServiceName) -> Problem:
    found = problem or Problem(Code.EXIT, "it failed")
    return Problem(
        found.code,
        f"{found.message}; gave up after {restart.limit} failures in a row",
        f"{found.hint}; then start it again: extsloaderctl start {name}".removeprefix("; then "),
    )


def call_off_creations(world: World) -> tuple[CallOffCreation, ...]:
    """A runtime that hangs must not hold up a stop."""
    creating = (s for s in world.services.values() if s.phase is ServicePhase.CREATING)
    return tuple(CallOffCreation(state.spec.name) for state in creating)


def _enter(state: ServiceState, phase: ServicePhase, moment: Moment) -> ServiceState:
    return state if phase is state.phase else replace(state, phase=phase, since=moment.wall)


def _check(state: ServiceState) -> CheckReady:
    return CheckReady(state.spec.name, state.run, state.spec.readiness)


def _kill(state: ServiceState) -> KillService:
    return KillService(state.spec.name, state.run)


def _grace(state: ServiceState, delay: float) -> SetTimer:
    return SetTimer(TimerId(TimerKind.GRACE, state.spec.name), delay)


def _cancel(state: ServiceState, *kinds: TimerKind) -> tuple[CancelTimer, ...]:
    return tuple(CancelTimer(TimerId(kind, state.spec.name)) for kind in kinds)
