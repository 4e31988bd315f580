"""Order and circles among services."""

import random
from collections import deque
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

import pytest
from hypothesis import given

from extsloader.core import graph
from extsloader.model.ids import ServiceName
from extsloader.model.manifest import Service
from tests.fakes import builders, drawn


def test_every_kind_of_need_counts_once() -> None:
    service = builders.service("a", requires=["b"], wants=["c", "b"], after=["d"])
    assert graph.needs(service) == ("b", "c", "d")


def test_a_name_that_is_not_there_is_no_edge() -> None:
    services = (builders.service("a", wants=["ghost"]),)
    assert graph.needs_of(services) == {"a": ()}
    assert graph.start_order(services) == (("a",),)


def test_the_users_of_a_service_are_known() -> None:
    services = (
        builders.service("broker"),
        builders.service("web", requires=["broker"]),
        builders.service("log", after=["broker"]),
    )
    assert graph.needed_by(services) == {"broker": ("log", "web"), "log": (), "web": ()}


def test_services_start_in_waves() -> None:
    services = (
        builders.service("web", requires=["broker", "log"]),
        builders.service("broker"),
        builders.service("log", after=["broker"]),
        builders.service("clock"),
    )
    assert graph.start_order(services) == (("broker", "clock"), ("log",), ("web",))


def test_a_circle_has_no_order() -> None:
    services = (builders.service("a", wants=["b"]), builders.service("b", after=["a"]))
    with pytest.raises(ValueError, match="in a circle"):
        graph.start_order(services)


def test_a_service_that_needs_itself_is_the_smallest_circle() -> None:
    services = (builders.service("a", wants=["b"]), builders.service("b", requires=["b"]))
    assert graph.find_cycle(services) == ("b", "b")


def test_of_two_circles_the_shorter_one_is_named() -> None:
    services = (
        builders.service("a", wants=["b"]),
        builders.service("b", wants=["c"]),
        builders.service("c", wants=["a"]),
        builders.service("x", wants=["y"]),
        builders.service("y", wants=["x"]),
    )
    assert graph.find_cycle(services) == ("x", "y", "x")


def test_a_chain_has_no_circle() -> None:
    assert graph.find_cycle((builders.service("a", wants=["b"]), builders.service("b"))) == ()


@given(services=drawn.graphs())
def test_a_circle_is_found_whenever_there_is_one_and_is_real_and_shortest(
    services: tuple[Service, ...],
) -> None:
    edges = graph.needs_of(services)
    cycle = graph.find_cycle(services)
    assert bool(cycle) == _has_cycle(edges)
    for name, other in pairwise(cycle):
        assert other in edges[name]
    if cycle:
        assert cycle[0] == cycle[-1]
        assert len(set(cycle)) == len(cycle) - 1
        assert len(cycle) - 1 == min(filter(None, (_girth(edges, name) for name in edges)))


@given(services=drawn.dags())
def test_every_service_starts_after_all_that_it_needs(services: tuple[Service, ...]) -> None:
    waves = graph.start_order(services)
    place = {name: number for number, wave in enumerate(waves) for name in wave}
    assert set(place) == {service.name for service in services}
    for service in services:
        assert all(place[other] < place[service.name] for other in graph.needs(service))


def test_h086_a_thousand_shuffles_of_a_manifest_have_one_order() -> None:
    names = "abcdefghij"
    services = [builders.service(name, wants=names[:number:3]) for number, name in enumerate(names)]
    dice = random.Random(1)  # noqa: S311 - a test's own dice
    orders, users = set(), set()
    for _ in range(1000):
        dice.shuffle(services)
        orders.add(graph.start_order(services))
        users.add(tuple(sorted(graph.needed_by(services).items())))
    assert len(orders) == len(users) == 1


def _has_cycle(edges: graph.Edges) -> bool:
    try:
        TopologicalSorter(edges).prepare()
    except CycleError:
        return True
    return False


def _girth(edges: graph.Edges, start: ServiceName) -> int:
    """Steps of the shortest way from a service back to itself; 0 when there is none."""
    distance = dict.fromkeys(edges[start], 1)
    queue = deque(distance)
    while queue:
        name = queue.popleft()
        if name == start:
            return distance[name]
        for other in edges[name]:
            if other not in distance:
                distance[other] = distance[name] + 1
                queue.append(other)
    return 0


def test_of_two_that_conflict_one_yields_whoever_said_so() -> None:
    a, b = builders.service("a"), builders.service("b", conflicts=["a", "ghost"])
    assert graph.rivals_of((a, b)) == {"a": ("b",), "b": ("a",)}
    assert graph.yields_to((a, b)) == {"a": (), "b": ("a",)}
    assert graph.start_order((b, a)) == (("a",), ("b",))


def test_essential_services_go_first_then_lower_stages_then_names() -> None:
    last = builders.service("z", essential=True, stage=3, conflicts=["a"])
    assert graph.yields_to((last, builders.service("a")))[ServiceName("a")] == ("z",)
    later = builders.service("a", stage=1, conflicts=["z"])
    assert graph.yields_to((later, builders.service("z")))[ServiceName("a")] == ("z",)


def test_rivals_whose_needs_leave_no_answer_are_a_circle() -> None:
    services = (
        builders.service("a", conflicts=["b"], after=["c"]),
        builders.service("b"),
        builders.service("c", after=["b"]),
    )
    assert set(graph.find_cycle(services)) == {"a", "b", "c"}
