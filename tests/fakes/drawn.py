"""Hypothesis strategies for services and what they need from each other."""

from dataclasses import replace

from hypothesis import strategies as st

from extsloader.core import graph
from extsloader.model.manifest import (
    Conditions,
    Health,
    ProbeKind,
    Readiness,
    Restart,
    RestartPolicy,
    Service,
    Stop,
)
from tests.fakes import builders

KINDS = ("requires", "wants", "after")
READINESS = (
    Readiness(),
    Readiness(seconds=5),
    Readiness(kind=ProbeKind.NOTIFY, timeout=40),
    Readiness(kind=ProbeKind.TCP, port=1, timeout=40),
)

HEALTH = Health(kind=ProbeKind.TCP, port=1, failures=2)


@st.composite
def graphs(draw: st.DrawFn, most: int = 7) -> tuple[Service, ...]:
    """Services that may need each other, and themselves, in any way."""
    names = "abcdefghij"[: draw(st.integers(1, most))]
    return tuple(_service(draw, name, names) for name in names)


@st.composite
def dags(draw: st.DrawFn, most: int = 7) -> tuple[Service, ...]:
    """Services without a circle, in an order that says nothing about what they need."""
    names = "abcdefghij"[: draw(st.integers(1, most))]
    order = "".join(draw(st.permutations(names)))
    found = {name: _service(draw, name, order[:place]) for place, name in enumerate(order)}
    return tuple(found[name] for name in names)


@st.composite
def fleets(draw: st.DrawFn, most: int = 5) -> tuple[Service, ...]:
    """The same with stages, conflicts and conditions, as far as they make sense together."""
    found = {service.name: service for service in draw(dags(most))}
    for name in (n for wave in graph.start_order(found.values()) for n in wave):
        needed = max((found[n].stage for n in graph.needs(found[name])), default=0)
        unmet = Conditions(paths=("/dev/never",) if draw(st.integers(0, 5)) == 5 else ())
        stage = needed + draw(st.sampled_from((0, 0, 1)))
        found[name] = replace(found[name], stage=stage, conditions=unmet)
    rivals = draw(st.lists(st.tuples(*[st.sampled_from(sorted(found))] * 2), max_size=2))
    for name, other in rivals:
        tried = {**found, name: replace(found[name], conflicts=(other,))}
        if name != other and not graph.find_cycle(tried.values()):
            found = tried
    return tuple(found.values())


def _service(draw: st.DrawFn, name: str, others: str) -> Service:
    needs = {}
    if others:
        needs = draw(st.dictionaries(st.sampled_from(others), st.sampled_from(KINDS), max_size=3))
    return builders.service(
        name,
        **{kind: [other for other, its in needs.items() if its == kind] for kind in KINDS},
        essential=draw(st.booleans()),
        readiness=draw(st.sampled_from(READINESS)),
        restart=Restart(
            policy=draw(st.sampled_from(RestartPolicy)), limit=draw(st.sampled_from((0, 1, 3)))
        ),
        health=draw(st.sampled_from((None, None, HEALTH))),
        stop=Stop(grace=3),
    )
