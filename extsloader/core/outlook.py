"""For how long a service has waited, and what will happen then, in one sentence."""

from extsloader.core import budget
from extsloader.model.ids import ServiceName
from extsloader.model.machine import Moment
from extsloader.model.manifest import ProbeKind
from extsloader.model.world import ServicePhase, ServiceState, World


def foresee(
    world: World, state: ServiceState, waiting: tuple[ServiceName, ...], moment: Moment
) -> str:
    """An empty text where nothing is waited for."""
    match state.phase:
        case ServicePhase.STARTED:
            return _foresee_readiness(state, moment)
        case ServicePhase.IDLE | ServicePhase.CREATED if waiting:
            return _foresee_start(state, waiting, moment)
        case ServicePhase.CREATED if world.admission.refusal:
            left = max(0.0, world.admission.retry_at - moment.now)
            return f"the device is looked at again in {left:.0f} s"
        case ServicePhase.BACKING_OFF | ServicePhase.DUE:
            return _foresee_restart(world, state, moment)
        case ServicePhase.PARKED:
            return f"it stays down until somebody starts it: extsloaderctl start {state.spec.name}"
        case _:
            return ""


def _foresee_readiness(state: ServiceState, moment: Moment) -> str:
    readiness = state.spec.readiness
    waited = moment.now - state.waiting_since
    if readiness.kind is ProbeKind.DELAY:
        return f"it is called ready in {max(0.0, readiness.seconds - waited):.0f} s"
    limit = state.spec.restart.limit
    then = "given up" if limit and state.failures >= limit else "stopped and tried again"
    return f"it has waited {waited:.0f} s; after {readiness.timeout:g} s it is {then}"


def _foresee_start(state: ServiceState, waiting: tuple[ServiceName, ...], moment: Moment) -> str:
    waited = f"it has waited {max(0.0, moment.wall - state.since):.0f} s"
    if set(waiting) & set(state.spec.requires):
        return f"{waited}; it starts when they are ready, and not while one has given up"
    return f"{waited}; it starts when they are ready, have failed once or have made room"


def _foresee_restart(world: World, state: ServiceState, moment: Moment) -> str:
    left = budget.seconds_left(world, moment)
    if left and state.phase is ServicePhase.DUE:
        restarts = world.settings.limits.restarts
        return f"all services together may restart {restarts} times a minute: more in {left:.0f} s"
    limit = state.spec.restart.limit
    return f"failure {state.failures}; after {limit} it is given up" if limit else ""
