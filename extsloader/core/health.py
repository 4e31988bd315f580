"""The probes of a ready service: when to ask, and what the answers mean."""

from dataclasses import replace

from extsloader.model.effects import CancelTimer, CheckReady, Effect, SetTimer
from extsloader.model.events import ServiceChecked, TimerId, TimerKind
from extsloader.model.manifest import HealthAction, Readiness
from extsloader.model.reasons import Code, Problem
from extsloader.model.world import ServicePhase, ServiceState


def ask(state: ServiceState) -> tuple[Effect, ...]:
    """One probe now, by the same means as readiness."""
    probe = state.spec.health
    if probe is None:
        return ()
    by = Readiness(
        kind=probe.kind,
        command=probe.command,
        host=probe.host,
        port=probe.port,
        path=probe.path,
    )
    return (CheckReady(state.spec.name, state.run, by, probe.timeout),)


def ask_later(state: ServiceState) -> tuple[Effect, ...]:
    """The next probe after its interval."""
    probe = state.spec.health
    if probe is None:
        return ()
    return (SetTimer(TimerId(TimerKind.HEALTH, state.spec.name), probe.interval),)


def stop_asking(state: ServiceState) -> tuple[Effect, ...]:
    """It is not ready any more."""
    return (CancelTimer(TimerId(TimerKind.HEALTH, state.spec.name)),) if state.spec.health else ()


def count(state: ServiceState, report: ServiceChecked) -> ServiceState:
    """The state after an answer: failures in a row, and the problem while there are too many."""
    if report.ready:
        return replace(state, unhealthy=0, problem=None)
    counted = replace(state, unhealthy=state.unhealthy + 1)
    if not is_sick(counted):
        return counted
    message = f"cannot call {state.spec.name} healthy: {counted.unhealthy} probes in a row failed"
    problem = Problem(Code.HEALTH, f"{message}: {report.detail}", "look at the service's log")
    return replace(counted, problem=problem)


def is_sick(state: ServiceState) -> bool:
    """Whether a service that runs has failed its probes too often."""
    probe = state.spec.health
    if probe is None or state.phase is not ServicePhase.READY:
        return False
    return state.unhealthy >= probe.failures


def is_to_restart(state: ServiceState) -> bool:
    """Whether its manifest wants that answered by a restart."""
    probe = state.spec.health
    return is_sick(state) and probe is not None and probe.action is HealthAction.RESTART
