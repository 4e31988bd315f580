"""All services together: which are wanted, which may start, and who has to go first."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain

from extsloader.core import (
    admission,
    budget,
    conditions,
    graph,
    images,
    measurement,
    oci,
    rollout,
    services,
)
from extsloader.core.step import Step
from extsloader.core.supervision import ENDED, OUT, SETTLED, UP, Order, order_for
from extsloader.model.events import ImageMounted
from extsloader.model.ids import ServiceName
from extsloader.model.machine import Moment
from extsloader.model.manifest import Service, StoredImage
from extsloader.model.plan import ContainerPlan
from extsloader.model.reasons import Code, Problem
from extsloader.model.world import ServicePhase, ServiceState, World

Wishes = Mapping[ServiceName, bool]
Gate = tuple[int, tuple[ServiceName, ...]]

LEAVING = UP | {ServicePhase.CREATING, ServicePhase.CREATED, ServicePhase.REMOVING}
"""Something of it is still on the machine."""

RUNS = UP | {ServicePhase.REMOVING}
"""Processes of it may still be there: no rival is started."""


def plan(world: World, image: StoredImage, mounted: ImageMounted, moment: Moment) -> Step:
    """Plan every service of a mounted image, in start order; a bad bundle parks its service."""
    found = {service.name: service for service in image.manifest.services}
    ready = _plan_containers(world, found, mounted)
    users, stronger = graph.needed_by(found.values()), graph.yields_to(found.values())
    rivals = graph.rivals_of(found.values())
    planned = {}
    for name in chain(*graph.start_order(found.values())):
        spec = found[name]
        unmet = conditions.explain_unmet(spec.conditions, world.machine, mounted.existing)
        begun = _begin(spec, ready[name], moment)
        if begun.plan and (unmet or stronger.get(name)):
            # It may run since before the agent started, and must not be overlooked then.
            begun = replace(begun, phase=ServicePhase.DUE)
        planned[name] = replace(
            begun,
            users=users[name],
            yields_to=stronger.get(name, ()),
            rivals=rivals.get(name, ()),
            skipped=unmet,
        )
    return Step(replace(world, services=planned))


def give_up(world: World) -> Step:
    """Leave an image that has failed before it has run well, if there is another one."""
    if not images.may_be_left(world):
        return Step(world)
    apart = {*find_skipped(world), *rollout.find_holds(world)}
    fatal = find_fatal(world, (s for name, s in world.services.items() if name not in apart))
    return images.give_up(world, fatal[0]) if fatal else Step(world)


def settle(world: World, moment: Moment) -> Step:
    """Give every order that is due: starts go down the graph, stops go up."""
    if not world.services:
        return Step(world)
    wishes = find_wishes(world)
    step = _move_up(world, wishes, moment)
    return _move_down(step, wishes, moment)


def find_wishes(world: World) -> Wishes:
    """Whether each service is wanted.

    Its image is, its conditions are met, nobody holds it, its bundle is usable, nothing that it
    requires gave up, and no rival that goes before it is there.
    """
    wishes: dict[ServiceName, bool] = {}
    if not images.is_in_use(world):
        return dict.fromkeys(world.services, False)
    holds = rollout.find_holds(world)
    for name, state in world.services.items():
        wishes[name] = (
            not state.skipped
            and name not in holds
            and (state.plan is not None or state.phase is ServicePhase.PARKED)
            and (not state.spec.requires or _has_all_required(world, state, wishes))
            and (not state.yields_to or _find_rival(world, state, wishes) is None)
        )
    return wishes


def find_skipped(world: World) -> Mapping[ServiceName, str]:
    """Services that are not meant to run here or now, and why: that is no failure."""
    found: dict[ServiceName, str] = {}
    if not any(state.skipped or state.yields_to for state in world.services.values()):
        return found
    wishes = find_wishes(world)
    for name, state in world.services.items():
        rival = _find_rival(world, state, wishes)
        missed = next((other for other in state.spec.requires if other in found), None)
        if state.skipped:
            found[name] = state.skipped
        elif rival:
            found[name] = f"conflicts with {rival}, which goes before it"
        elif missed:
            found[name] = f"requires {missed}, which is skipped"
    return found


def find_lost(world: World) -> frozenset[ServiceName]:
    """Services that have given up, or require what has."""
    found: set[ServiceName] = set()
    for name, state in world.services.items():
        given_up = state.phase is ServicePhase.PARKED or state.plan is None
        if given_up or (found and not found.isdisjoint(state.spec.requires)):
            found.add(name)
    return frozenset(found)


def find_fatal(world: World, meant: Iterable[ServiceState]) -> tuple[ServiceState, ...]:
    """Of the services that are meant to run those that make the whole a failure.

    Lost ones: the essential, or else all of them if they are more than `limits.failures`.
    """
    names = find_lost(world)
    if not names:
        return ()
    lost = tuple(state for state in meant if state.spec.name in names)
    budget = world.settings.limits.failures
    essential = tuple(state for state in lost if state.spec.essential)
    return essential or (lost if budget and len(lost) > budget else ())


def find_gate(world: World, wishes: Wishes) -> Gate:
    """The lowest stage that is not through yet, and its services that later stages wait for."""
    waiting = [s for n, s in world.services.items() if wishes[n] and s.phase not in ENDED]
    stage = min((s.spec.stage for s in waiting), default=0)
    return stage, tuple(s.spec.name for s in waiting if s.spec.stage == stage)


def waits_for(
    world: World, state: ServiceState, wishes: Wishes, gate: Gate
) -> tuple[ServiceName, ...]:
    """The services that keep this one from starting."""
    spec = state.spec
    earlier = gate[1] if gate[0] < spec.stage else ()
    running = [name for name in state.rivals if world.services[name].phase in RUNS]
    required = [n for n in spec.requires if world.services[n].phase not in SETTLED]
    ordered = [
        name
        for name in (*spec.wants, *spec.after)
        if name in wishes and wishes[name] and world.services[name].phase not in ENDED
    ]
    return tuple(dict.fromkeys((*required, *ordered, *running, *earlier)))


def _move_up(world: World, wishes: Wishes, moment: Moment) -> Step:
    step = Step(world)
    gate, unmeasured = find_gate(world, wishes), measurement.is_due(world)
    missing, held_up = [], False
    for name, state in world.services.items():
        order = order_for(state.phase, wanted=wishes[name])
        if order is Order.CREATE:
            missing.append(state)
        elif order is not Order.START or unmeasured or waits_for(world, state, wishes, gate):
            continue
        elif admission.admits(world, moment):
            step = step.then(services.start, state, moment)
        else:
            held_up = True
    if held_up:
        step = step.then(admission.hold_up, moment)
    return step.then(_create, missing, moment) if missing else step


def _create(world: World, missing: list[ServiceState], moment: Moment) -> Step:
    """First runs in start order; then restarts, as far as the budget of all goes."""
    free = world.settings.limits.parallel_creates - _count_creating(world)
    step = Step(world)
    for state in sorted(missing, key=_rank)[: max(0, free)]:
        if state.phase is ServicePhase.DUE:
            if budget.seconds_left(step.world, moment):
                return step.then(budget.wait, moment)
            step = Step(budget.spend(step.world, moment), step.effects)
        step = step.then(services.create, state, moment)
    return step


def _rank(state: ServiceState) -> tuple[bool, bool, float]:
    """First runs before restarts, essential services before others, then who waits longest."""
    due = state.phase is ServicePhase.DUE
    return (due, due and not state.spec.essential, state.retry_at if due else 0.0)


def _has_all_required(world: World, state: ServiceState, wishes: Wishes) -> bool:
    for other in state.spec.requires:  # no generator: this is asked of each service in each step
        if not wishes[other] or world.services[other].phase is ServicePhase.PARKED:
            return False
    return True


def _find_rival(world: World, state: ServiceState, wishes: Wishes) -> ServiceName | None:
    """A stronger rival that is there or on its way."""
    for rival in state.yields_to:
        if wishes[rival] and world.services[rival].phase not in OUT:
            return rival
    return None


def _move_down(step: Step, wishes: Wishes, moment: Moment) -> Step:
    for name, state in reversed(list(step.world.services.items())):
        order = order_for(state.phase, wanted=wishes[name])
        if order not in (Order.REMOVE, Order.STOP) or _has_users(step.world, state, wishes):
            continue
        unwanted = replace(state, after_removal=ServicePhase.IDLE, failures=0)
        leave = services.stop if order is Order.STOP else services.remove
        step = step.then(leave, unwanted, moment)
    return step


def _count_creating(world: World) -> int:
    return sum(s.phase is ServicePhase.CREATING for s in world.services.values())


def _has_users(world: World, state: ServiceState, wishes: Wishes) -> bool:
    """Whether a service that has to stop before this one is still there."""
    return any(not wishes[name] and world.services[name].phase in LEAVING for name in state.users)


def _begin(
    spec: Service,
    result: ContainerPlan | Problem,
    moment: Moment,
) -> ServiceState:
    state = ServiceState(spec=spec, plan=None, since=moment.wall)
    if isinstance(result, ContainerPlan):
        return replace(state, plan=result)
    return replace(state, phase=ServicePhase.PARKED, problem=result)


def _plan_containers(
    world: World, found: Mapping[ServiceName, Service], mounted: ImageMounted
) -> dict[ServiceName, ContainerPlan | Problem]:
    """A plan for each service, or why there is none."""
    results: dict[ServiceName, ContainerPlan | Problem] = {
        name: Problem(Code.BUNDLE, f"cannot plan {name}: its bundle {spec.bundle} was not read")
        for name, spec in found.items()
    }
    results.update(mounted.problems)
    for bundle in mounted.bundles:
        results[bundle.service] = oci.plan_container(
            bundle,
            found[bundle.service],
            mounted.mountpoint,
            mounted.digest,
            world.settings,
            world.machine,
        )
    return results
