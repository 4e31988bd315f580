"""What will happen when an image's services are started, as far as its manifest tells."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from extsloader.core import graph
from extsloader.model.ids import ServiceName
from extsloader.model.manifest import Conditions, ProbeKind, Readiness, Service


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """One service's turn."""

    name: ServiceName
    step: int  # from 1; those of one step start together
    behind: ServiceName | None  # the last one that it waits for, as far as can be told
    seconds: float  # from the first start until it is ready, or is given up waiting for
    deferred: tuple[str, ...]  # why it may start later than its turn, or not at all


def foretell(services: Iterable[Service]) -> tuple[Start, ...]:
    """Each service's turn, in order; what starting itself takes is not counted.

    Raises ValueError when the services need each other in a circle.
    """
    found = {service.name: service for service in services}
    stronger = graph.yields_to(found.values())
    starts: dict[ServiceName, Start] = {}
    stage, gate = 0, list[Start]()
    # No service needs one of a later stage (image.relations), so this is an order, too.
    for name in sorted(chain(*graph.start_order(found.values())), key=lambda n: found[n].stage):
        spec = found[name]
        if spec.stage != stage:
            stage, gate = spec.stage, _find_ends(starts.values())
        waited = [*gate, *(starts[other] for other in graph.needs(spec) if other in starts)]
        behind = _find_latest(waited)
        starts[name] = Start(
            name=name,
            step=1 + max((other.step for other in waited), default=0),
            behind=behind.name if behind else None,
            seconds=(behind.seconds if behind else 0.0) + _wait(spec.readiness),
            deferred=(*_yield(stronger.get(name, ())), *_depend(spec.conditions)),
        )
    return tuple(sorted(starts.values(), key=lambda start: start.step))


def find_critical_path(starts: Iterable[Start]) -> tuple[ServiceName, ...]:
    """The chain of services that everything may have to wait for longest, first one first."""
    found = {start.name: start for start in starts}
    last = _find_latest(found.values())
    path: list[ServiceName] = []
    while last:
        path.insert(0, last.name)
        last = found[last.behind] if last.behind else None
    return tuple(path)


def _find_ends(starts: Collection[Start]) -> list[Start]:
    """What all of the next stage waits for: nothing else ends later or is a later step."""
    latest = _find_latest(starts)
    return [latest, max(starts, key=lambda start: start.step)] if latest else []


def _find_latest(starts: Iterable[Start]) -> Start | None:
    return max(starts, key=lambda start: (start.seconds, start.step), default=None)


def _wait(readiness: Readiness) -> float:
    return readiness.seconds if readiness.kind is ProbeKind.DELAY else readiness.timeout


def _yield(rivals: tuple[ServiceName, ...]) -> Iterator[str]:
    for rival in rivals:
        yield f"conflicts with {rival}, which goes before it"


def _depend(wanted: Conditions) -> Iterator[str]:
    if wanted.hypervisors:
        yield f"only on hypervisor {' or '.join(wanted.hypervisors)}"
    for path in wanted.paths:
        yield f"only where {path} exists"
    for word in wanted.command_line:
        yield f"only with {word} on the kernel's command line"
