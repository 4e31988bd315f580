"""The dependency graph of an image's services: cycles, order, who waits for whom.

Every kind of dependency (`requires`, `wants`, `after`) orders start and stop, so all of them
count for cycles. Of two services that conflict one yields to the other, which has its say first:
that counts as well, so that there is one answer to who runs. A name that is not in the set is no
edge: the schema refuses such manifests.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

from extsloader.model.ids import ServiceName
from extsloader.model.manifest import Service

Edges = Mapping[ServiceName, tuple[ServiceName, ...]]


def needs(service: Service) -> tuple[ServiceName, ...]:
    """Everything that has its say before this service starts, each once, in manifest order."""
    return tuple(dict.fromkeys((*service.requires, *service.wants, *service.after)))


def needs_of(services: Iterable[Service]) -> Edges:
    """Service -> what it needs; names sorted, so that the same set gives the same graph."""
    found = sorted(services, key=lambda service: service.name)
    names = {service.name for service in found}
    stronger = yields_to(found)
    return {
        s.name: tuple(sorted(names.intersection((*needs(s), *stronger.get(s.name, ())))))
        for s in found
    }


def rivals_of(services: Iterable[Service]) -> Edges:
    """Service -> those that it may not run together with, whoever said so."""
    found = {service.name: service for service in services}
    pairs: dict[ServiceName, set[ServiceName]] = {}
    for service in found.values():
        for other in service.conflicts:
            if other in found:
                pairs.setdefault(service.name, set()).add(other)
                pairs.setdefault(other, set()).add(service.name)
    return {name: tuple(sorted(others)) for name, others in pairs.items()}


def yields_to(services: Iterable[Service]) -> Edges:
    """Service -> the rivals that go before it: essential ones, lower stages, earlier names."""
    ranks = {s.name: (not s.essential, s.stage, s.name) for s in services}
    return {
        name: tuple(other for other in others if ranks[other] < ranks[name])
        for name, others in rivals_of(services).items()
    }


def needed_by(services: Iterable[Service]) -> Edges:
    """Service -> those that need it: they stop before it does."""
    found: dict[ServiceName, list[ServiceName]] = {}
    for name, wanted in needs_of(services).items():
        found.setdefault(name, [])
        for other in wanted:
            found.setdefault(other, []).append(name)
    return {name: tuple(sorted(users)) for name, users in found.items()}


def start_order(services: Iterable[Service]) -> tuple[tuple[ServiceName, ...], ...]:
    """Waves of services: each wave needs only earlier ones. Raises ValueError on a cycle."""
    sorter = TopologicalSorter(needs_of(services))
    try:
        sorter.prepare()
    except CycleError as error:
        raise ValueError("the services depend on each other in a circle") from error
    waves = []
    while sorter.is_active():
        wave = tuple(sorted(sorter.get_ready()))
        sorter.done(*wave)
        waves.append(wave)
    return tuple(waves)


def find_cycle(services: Iterable[Service]) -> tuple[ServiceName, ...]:
    """A shortest cycle, first and last name equal ("a", "b", "a"); empty when there is none."""
    edges = needs_of(services)
    try:
        TopologicalSorter(edges).prepare()
    except CycleError:
        cycles = (_shortest_way_back(edges, name) for name in edges)
        return min((c for c in cycles if c), key=lambda cycle: (len(cycle), cycle))
    return ()


def _shortest_way_back(edges: Edges, start: ServiceName) -> tuple[ServiceName, ...]:
    """Breadth first from `start` to `start`: the first way found is a shortest one."""
    came_from: dict[ServiceName, ServiceName] = {}
    queue = deque([start])
    while queue:
        name = queue.popleft()
        for other in edges[name]:
            if other == start:
                return _trace(came_from, start, name)
            if other not in came_from:
                came_from[other] = name
                queue.append(other)
    return ()


def _trace(
    came_from: Mapping[ServiceName, ServiceName], start: ServiceName, last: ServiceName
) -> tuple[ServiceName, ...]:
    way = [start, last]
    while way[-1] != start:
        way.append(came_from[way[-1]])
    return tuple(reversed(way))
