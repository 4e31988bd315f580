"""Services that depend on each other in ways that have no order, or only a slow one."""

import time
from itertools import pairwise

import pytest

from extsloader.core.graph import needs_of
from extsloader.model.helper import Request
from extsloader.model.reasons import Code
from tests.hostile.judge import accepted, judge, manifest, refusal, sealed, services

pytestmark = pytest.mark.hostile

MANY = [f"s{number:02}" for number in range(64)]
Needs = dict[str, list[str]]


def ring(*names: str) -> Needs:
    return {name: [other] for name, other in pairwise((*names, names[0]))}


@pytest.mark.parametrize("kind", ["requires", "wants", "after"])
@pytest.mark.parametrize(
    ("needs", "cycle"),
    [
        pytest.param({"a": ["a"]}, "a -> a", id="h078 itself"),
        pytest.param(ring("a", "b"), "a -> b -> a", id="h079 two"),
        pytest.param(ring(*MANY), " -> ".join((*MANY, MANY[0])), id="h079 sixty-four"),
        pytest.param(ring("a", "b", "c") | ring("x", "y"), "x -> y -> x", id="h079 the shorter"),
        pytest.param(
            {"a": ["b"], "b": ["c"]} | ring("c", "d"), "c -> d -> c", id="h079 far from the start"
        ),
    ],
)
def test_cycles(asked: Request, kind: str, needs: Needs, cycle: str) -> None:
    code, message = refusal(sealed(manifest(services=services(needs, kind))), asked)
    assert code is Code.DAG
    assert f"{cycle} is a cycle" in message


@pytest.mark.parametrize("kind", ["requires", "wants", "after"])
def test_h080_a_need_of_nobody(asked: Request, kind: str) -> None:
    code, message = refusal(sealed(manifest(services=services({"a": ["b"]}, kind))), asked)
    assert (code, "'b', not there" in message) == (Code.DAG, True)


def test_h081_one_need_said_twice(asked: Request) -> None:
    found = manifest(services__1__requires=["a", "a"], services__1__after=["a"])
    assert needs_of(accepted(found, asked).manifest.services) == {"a": (), "b": ("a",)}


SHAPES: dict[str, Needs] = {
    "h082 chain": {"s00": []} | {name: [before] for before, name in pairwise(MANY)},
    "h082 star": {"s00": []} | {name: ["s00"] for name in MANY[1:]},
    "h082 all": {name: MANY[:number] for number, name in enumerate(MANY)},
}


@pytest.mark.parametrize("needs", SHAPES.values(), ids=SHAPES.keys())
def test_large_graphs(asked: Request, needs: Needs) -> None:
    raw = manifest(services=services(needs))
    spent = []
    for _ in range(3):  # the least counts: this process has other tests' rubbish to collect
        before = time.process_time()
        assert judge(raw, asked) is None
        spent.append(time.process_time() - before)
    assert min(spent) < 0.05


def test_h082_a_million_needs(asked: Request) -> None:
    assert judge(manifest(services=services(dict.fromkeys(MANY, MANY * 250))), asked) is Code.LIMIT
    assert judge(manifest(services=services({"a": ["a"] * 1000})), asked) is Code.LIMIT
