"""All services together: which are wanted, which may start, and who has to go first."""

from collections.abc import Mapping
from dataclasses import replace

from extsloader.core import graph, images, oci, services
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
    planned = {
        name: _plan_one(world, found[name], users[name], mounted, moment)
        for wave in graph.start_order(found.values())
        for name in wave
    }
    return Step(replace(world, services=planned))


def settle(world: World, moment: Moment) -> Step:
    """Give every order that is due: starts go down the graph, stops go up."""
    if not world.services:
        return Step(world)
    wishes = find_wishes(world)
    step = Step(world)
    for name in world.services:
        step = step.then(_move_up, name, wishes, moment)
    for name in reversed(tuple(world.services)):
        step = step.then(_move_down, name, wishes, moment)
    return step


def find_wishes(world: World) -> Wishes:
    """Whether each service is wanted: its image is, and nothing that it requires gave up."""
    wishes: dict[ServiceName, bool] = {}
    image_wanted = images.is_wanted(world, world.active)
    for name, state in world.services.items():
        wishes[name] = image_wanted and all(
            wishes[other] and world.services[other].phase is not ServicePhase.PARKED
            for other in state.spec.requires
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


def _move_up(world: World, name: ServiceName, wishes: Wishes, moment: Moment) -> Step:
    state = world.services[name]
    order = order_for(state.phase, wanted=wishes[name])
    if order is Order.CREATE and _has_slot(world):
        return services.create(world, state, moment)
    if order is Order.START and not waits_for(world, state, wishes):
        return services.start(world, state, moment)
    return Step(world)


def _move_down(world: World, name: ServiceName, wishes: Wishes, moment: Moment) -> Step:
    state = world.services[name]
    order = order_for(state.phase, wanted=wishes[name])
    if order is Order.REMOVE and not _has_users(world, state, wishes):
        return services.remove(world, state, moment)
    if order is Order.STOP and not _has_users(world, state, wishes):
        unwanted = replace(state, after_removal=ServicePhase.IDLE, failures=0)
        return services.stop(world, unwanted, moment)
    return Step(world)


def _has_slot(world: World) -> bool:
    creating = sum(s.phase is ServicePhase.CREATING for s in world.services.values())
    return creating < world.settings.limits.parallel_creates


def _has_users(world: World, state: ServiceState, wishes: Wishes) -> bool:
    """Whether a service that has to stop before this one is still there."""
    return any(not wishes[name] and world.services[name].phase in LEAVING for name in state.users)


def _plan_one(
    world: World,
    service: Service,
    users: tuple[ServiceName, ...],
    mounted: ImageMounted,
    moment: Moment,
) -> ServiceState:
    result = _find_problem(mounted, service.name) or _plan_container(world, service, mounted)
    if isinstance(result, ContainerPlan):
        return ServiceState(spec=service, plan=result, users=users, since=moment.wall)
    return ServiceState(
        spec=service,
        plan=None,
        users=users,
        phase=ServicePhase.PARKED,
        problem=result,
        since=moment.wall,
    )


def _plan_container(
    world: World, service: Service, mounted: ImageMounted
) -> ContainerPlan | Problem:
    bundle = next((b for b in mounted.bundles if b.service == service.name), None)
    if bundle is None:
        return Problem(
            Code.BUNDLE, f"cannot plan {service.name}: its bundle {service.bundle} was not read"
        )
    return oci.plan_container(
        bundle, service, mounted.mountpoint, mounted.digest, world.settings, world.machine
    )


def _find_problem(mounted: ImageMounted, name: ServiceName) -> Problem | None:
    return next((problem for service, problem in mounted.problems if service == name), None)
