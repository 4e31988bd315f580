"""From the symptom of a service to its root cause, in sentences for an operator."""

from collections.abc import Callable

from extsloader.model.ids import ServiceName
from extsloader.model.reasons import Code, Problem
from extsloader.model.status import DAMAGED, Explanation, ServiceStatus, StatusSnapshot

FINE = frozenset({"ready", "finished", "skipped"})

DescribeLog = Callable[[str], str]
"""Where to look for what a service has written."""


def explain(
    snapshot: StatusSnapshot, name: ServiceName, describe_log: DescribeLog
) -> Explanation | None:
    """Why the service is as it is; None for an unknown name."""
    services = {service.name: service for service in snapshot.services}
    service = services.get(name)
    if service is None:
        return None
    chain = _follow(services, service)
    root = chain[-1]
    steps = tuple(_sentence(link) for link in chain)
    damages = _find_damages(snapshot)
    return Explanation(
        service=name,
        summary=_summary(service, root),
        steps=(*steps, *_extras(root, describe_log), *(damage.message for damage in damages)),
        root=root.name,
        next_step=(damages[0].hint if damages else "") or _next_step(root, describe_log),
    )


def _find_damages(snapshot: StatusSnapshot) -> tuple[Problem, ...]:
    """What runs from a damaged image may fail for no fault of its own."""
    if snapshot.image is None or snapshot.image.phase != DAMAGED:
        return ()
    return tuple(problem for problem in snapshot.problems if problem.code is Code.VERITY)


def is_well(snapshot: StatusSnapshot, name: ServiceName) -> bool:
    """Whether nothing is wrong with the service itself."""
    return any(s.name == name and s.state in FINE for s in snapshot.services)


def _follow(
    services: dict[ServiceName, ServiceStatus], service: ServiceStatus
) -> tuple[ServiceStatus, ...]:
    """Symptom first, then what it waits for or misses, down to a service that waits for nothing."""
    chain = [service]
    while True:
        waited = [services[n] for n in (*chain[-1].waiting_for, *_given_up(services, chain[-1]))]
        worst = next((w for w in waited if w.state not in FINE and w not in chain), None)
        if worst is None:
            return tuple(chain)
        chain.append(worst)


def _given_up(
    services: dict[ServiceName, ServiceStatus], service: ServiceStatus
) -> tuple[ServiceName, ...]:
    return tuple(n for n in service.requires if services[n].state == "parked")


def _summary(service: ServiceStatus, root: ServiceStatus) -> str:
    if root is service:
        return _sentence(service)
    link = "but" if service.state in FINE else "because"
    return f"{service.name} is {_say(service.state)} {link} {_sentence(root)}"


def _sentence(service: ServiceStatus) -> str:
    reason = f": {service.reason}" if service.reason else ""
    retry = f"; next try in {service.retry_in:.0f} s" if service.retry_in is not None else ""
    then = f"; {service.outlook}" if service.outlook else ""
    return f"{service.name} is {_say(service.state)}{reason}{retry}{then}"


def _extras(root: ServiceStatus, describe_log: DescribeLog) -> tuple[str, ...]:
    lines = []
    if root.restarts:
        times = "once" if root.restarts == 1 else f"{root.restarts} times"
        end = f"; it last ended with {root.last_exit}" if root.last_exit else ""
        lines.append(f"{root.name} was restarted {times}{end}")
    lines += [f"{root.name} runs with less than it asked for: {r}" for r in root.reduced]
    if root.state not in FINE:
        lines.append(f"its log is {describe_log(root.name)}")
    return tuple(lines)


def _next_step(root: ServiceStatus, describe_log: DescribeLog) -> str:
    if root.state in FINE:
        return "nothing to do"
    if root.hint:
        return root.hint
    if root.state in ("blocked", "creating", "created", "starting", "started"):
        return "wait: it is on its way"
    return f"read its log: {describe_log(root.name)}"


def _say(state: str) -> str:
    return state.replace("-", " ")
