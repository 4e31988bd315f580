"""What operators ask for: who may, what it changes, and what they are told."""

from collections.abc import Callable
from dataclasses import replace

from extsloader.core import history, reload, rollout, services
from extsloader.core.step import Step
from extsloader.core.supervision import Fact
from extsloader.model.control import Answer, Result, Verb
from extsloader.model.effects import CancelTimer, ListSources, Record, Reply
from extsloader.model.events import Asked, TimerId, TimerKind
from extsloader.model.history import Hold
from extsloader.model.ids import ServiceName
from extsloader.model.machine import Moment
from extsloader.model.status import Change
from extsloader.model.world import ServicePhase, ServiceState, World

Ruling = tuple[Step, Answer]

WAITS = frozenset({ServicePhase.BACKING_OFF, ServicePhase.PARKED, ServicePhase.FINISHED})
"""It does not run, and will not before something else happens."""

RUNS = frozenset({ServicePhase.STARTED, ServicePhase.READY})


def ask(world: World, asked: Asked, moment: Moment) -> Step:
    """Decide, do, answer, and leave a line for whoever looks into it later."""
    if asked.uid != 0:
        refused = Answer(result=Result.DENIED, message="only root may change anything")
        return _finish((Step(world), refused), asked, moment)
    if world.stopping:
        refused = Answer(result=Result.REFUSED, message="the agent is about to end")
        return _finish((Step(world), refused), asked, moment)
    if asked.verb is Verb.RELOAD:
        begun = Answer(result=Result.ACCEPTED, message="the configuration is being read")
        audit = Record(_audit(asked, begun, moment))
        step = reload.begin(world, asked.request)
        return Step(step.world, (audit, *step.effects))
    return _finish(_decide(world, asked, moment), asked, moment)


def _finish(ruling: Ruling, asked: Asked, moment: Moment) -> Step:
    step, answer = ruling
    effects = (Record(_audit(asked, answer, moment)), *step.effects, Reply(asked.request, answer))
    return Step(step.world, effects)


def _audit(asked: Asked, answer: Answer, moment: Moment) -> Change:
    return Change(
        wall=moment.wall,
        subject=f"operator uid {asked.uid}",
        old=f"{asked.verb} {asked.service}".rstrip(),
        new=answer.result,
        reason=answer.message,
    )


def _decide(world: World, asked: Asked, moment: Moment) -> Ruling:
    if asked.verb is Verb.RESCAN:
        return _rescan(world)
    state = world.services.get(ServiceName(asked.service))
    if state is None:
        message = f"there is no service {asked.service!a}"
        hint = "extsloaderctl services lists what there is"
        return Step(world), Answer(result=Result.UNKNOWN, message=message, hint=hint)
    verbs: dict[Verb, Callable[[World, ServiceState, Moment], Ruling]] = {
        Verb.START: _start,
        Verb.STOP: _stop,
        Verb.RESTART: _restart,
        Verb.PAUSE: _pause,
        Verb.RESUME: _resume,
    }
    return verbs[asked.verb](world, state, moment)


def _rescan(world: World) -> Ruling:
    if off := rollout.explain_off(world.settings):
        return Step(world), Answer(result=Result.REFUSED, message=off)
    listings = tuple(ListSources(provider) for provider in world.providers)
    forgiven = replace(world, history=replace(world.history, failed=()))
    return Step(forgiven, listings), _accept("all devices and directories are looked at again")


def _start(world: World, state: ServiceState, moment: Moment) -> Ruling:
    """A stopped one may run again; one that gave up, ended or waits is tried now."""
    name = state.spec.name
    if world.history.holds.get(name) is Hold.STOPPED:
        return _hold(world, name, None, moment), _accept(f"{name} may run again")
    if refusal := _refuse(world, state):
        return Step(world), refusal
    if state.phase in WAITS:
        return _try_now(world, state, moment), _accept(f"{name} is tried now")
    return Step(world), _already(f"{name} is {_say(state)}")


def _stop(world: World, state: ServiceState, moment: Moment) -> Ruling:
    name = state.spec.name
    if hold := rollout.find_holds(world).get(name):
        return Step(world), _already(f"{name} must not run: {hold.reason}")
    held = _hold(world, name, Hold.STOPPED, moment)
    return held, _accept(f"{name} stops until it is started or the device boots{_users(state)}")


def _restart(world: World, state: ServiceState, moment: Moment) -> Ruling:
    """It keeps what it wrote into its root file system; those that need it run on."""
    name = state.spec.name
    if refusal := _refuse(world, state):
        return Step(world), refusal
    if state.phase in WAITS:
        return _try_now(world, state, moment), _accept(f"{name} is tried now")
    if state.phase in RUNS:
        fresh = replace(state, after_removal=ServicePhase.DUE, failures=0, problem=None)
        return services.stop(world, fresh, moment), _accept(f"{name} is restarted")
    return Step(world), _already(f"{name} is {_say(state)}")


def _pause(world: World, state: ServiceState, moment: Moment) -> Ruling:
    name = state.spec.name
    if world.history.holds.get(name) is Hold.PAUSED:
        return Step(world), _already(f"{name} is paused")
    paused = _hold(world, name, Hold.PAUSED, moment)
    message = f"{name} stops until it is resumed, also after a boot{_users(state)}"
    return paused, _accept(message)


def _resume(world: World, state: ServiceState, moment: Moment) -> Ruling:
    name = state.spec.name
    hold = world.history.holds.get(name)
    if hold is Hold.PAUSED:
        return _hold(world, name, None, moment), _accept(f"{name} may run again")
    if hold is Hold.STOPPED:
        return Step(world), Answer(
            result=Result.REFUSED,
            message=f"{name} is stopped, not paused",
            hint=f"extsloaderctl start {name}",
        )
    return Step(world), _already(f"{name} is not paused")


def _hold(world: World, name: ServiceName, hold: Hold | None, moment: Moment) -> Step:
    """What an operator wants is on the disk before anything else is."""
    others = {n: h for n, h in world.history.holds.items() if n != name}
    holds = {**others, name: hold} if hold else others
    changed = replace(world, history=replace(world.history, holds=holds))
    return history.save(changed, moment)


def _try_now(world: World, state: ServiceState, moment: Moment) -> Step:
    due = services.move(state, Fact.ASKED, moment)
    fresh = replace(due, failures=0, problem=None)
    timer = CancelTimer(TimerId(TimerKind.BACK_OFF, state.spec.name))
    return Step(services.store(world, fresh), (timer,))


def _refuse(world: World, state: ServiceState) -> Answer | None:
    """Why it cannot be started, if so."""
    if hold := rollout.find_holds(world).get(state.spec.name):
        message = f"{state.spec.name} must not run: {hold.reason}"
        return Answer(result=Result.REFUSED, message=message, hint=hold.hint)
    if state.plan is None and state.problem:
        return Answer(result=Result.REFUSED, message=state.problem.message, hint=state.problem.hint)
    return None


def _users(state: ServiceState) -> str:
    """Who goes with it."""
    return f", and with it {', '.join(state.users)}" if state.users else ""


def _say(state: ServiceState) -> str:
    return f"{state.phase.replace('-', ' ')} already"


def _accept(message: str) -> Answer:
    return Answer(result=Result.ACCEPTED, message=message)


def _already(message: str) -> Answer:
    return Answer(result=Result.ALREADY, message=message)
