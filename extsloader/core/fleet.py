"""All services together: which are wanted, which may start, and who has to go first."""

from collections.abc import Mapping
from dataclasses import replace

from extsloader.core import graph, images, oci, rollout, services
from extsloader.core.step import Step
from extsloader.core.supervision import ENDED, SETTLED, UP, Order, order_for
from extsloader.model.events import ImageMounted
from extsloader.model.ids import ServiceName
from extsloader.model.machine import Moment
from extsloader.model.manifest import Service, StoredImage
from extsloader.model.plan import ContainerPlan
from extsloader.model.reasons import Code, Problem
from extsloader.model.world import ServicePhase, ServiceState, World

Wishes = Mapping[ServiceName, bool]

LEAVING = UP | {ServicePhase.CREATING, ServicePhase.CREATED, ServicePhase.REMOVING}
"""Something of it is still on the machine."""


def plan(world: World, image: StoredImage, mounted: ImageMounted, moment: Moment) -> Step:
    """Plan every service of a mounted image, in start order; a bad bundle parks its service."""
    found = {service.name: service for service in image.manifest.services}
    users = graph.needed_by(found.values())
    ready = _plan_containers(world, found, mounted)
    planned = {
        name: _begin(found[name], ready[name], users[name], moment)
        for wave in graph.start_order(found.values())
        for name in wave
    }
    return Step(replace(world, services=planned))


def settle(world: World, moment: Moment) -> Step:
    """Give every order that is due: starts go down the graph, stops go up."""
    if not world.services:
        return Step(world)
    wishes = find_wishes(world)
    step = _move_up(world, wishes, moment)
    return _move_down(step, wishes, moment)


def find_wishes(world: World) -> Wishes:
    """Whether each service is wanted: its image is, and nothing that it requires gave up.

    Nor is it held itself, by configuration or by an operator.
    """
    wishes: dict[ServiceName, bool] = {}
    image_wanted = images.is_in_use(world)
    holds = rollout.find_holds(world)
    for name, state in world.services.items():
        wishes[name] = (
            image_wanted
            and name not in holds
            and all(
                wishes[other] and world.services[other].phase is not ServicePhase.PARKED
                for other in state.spec.requires
            )
        )
    return wishes


def waits_for(world: World, state: ServiceState, wishes: Wishes) -> tuple[ServiceName, ...]:
    """The services that keep this one from starting."""
    spec = state.spec
    required = [n for n in spec.requires if world.services[n].phase not in SETTLED]
    ordered = [
        name
        for name in (*spec.wants, *spec.after)
        if name in wishes and wishes[name] and world.services[name].phase not in ENDED
    ]
    return tuple(dict.fromkeys((*required, *ordered)))


def _move_up(world: World, wishes: Wishes, moment: Moment) -> Step:
    step = Step(world)
    free = world.settings.limits.parallel_creates - _count_creating(world)
    for name, state in world.services.items():
        order = order_for(state.phase, wanted=wishes[name])
        if order is Order.CREATE and free > 0:
            free -= 1
            step = step.then(services.create, state, moment)
        elif order is Order.START and not waits_for(world, state, wishes):
            step = step.then(services.start, state, moment)
    return step


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
    users: tuple[ServiceName, ...],
    moment: Moment,
) -> ServiceState:
    state = ServiceState(spec=spec, plan=None, users=users, since=moment.wall)
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
