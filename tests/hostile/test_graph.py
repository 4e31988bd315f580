"""Rows H078 to H086: dependencies that make no order."""

import random
import time
from pathlib import Path
from typing import Any

import pytest

from extsloader.core.graph import start_order
from extsloader.model.manifest import StoredImage
from extsloader.model.reasons import Code
from tests.hostile.payloads import ask, changed, judge_payload

pytestmark = pytest.mark.hostile

ALL = [f"s{number}" for number in range(64)]


def graph(edges: dict[str, list[str]]) -> bytes:
    return changed(
        services=[
            {"name": name, "bundle": f"containers/services/{name}", "requires": needs}
            for name, needs in edges.items()
        ]
    )


BAD = {
    "H078-self": {"a": ["a"]},
    "H079-two": {"a": ["b"], "b": ["a"]},
    "H079-ring-of-64": {name: [ALL[n - 1]] for n, name in enumerate(ALL)},
    "H079-two-rings": {"a": ["b"], "b": ["a"], "c": ["d"], "d": ["c"]},
    "H079-behind-a-root": {"root": ["a"], "a": ["b"], "b": ["a"], "other": []},
    "H080-missing": {"a": ["b"]},
    "H083-other-case": {"a": ["A"]},
}


@pytest.mark.parametrize("edges", BAD.values(), ids=BAD)
def test_what_has_no_order_is_refused(tmp_path: Path, edges: dict[str, list[str]]) -> None:
    code = Code.SCHEMA if edges == BAD["H083-other-case"] else Code.DAG
    found = judge_payload(graph(edges), ask(tmp_path))
    assert found is code


GOOD = {
    "H081-double-edge": {"a": ["b", "b"], "b": []},
    "H082-chain": {name: ALL[n - 1 : n] if n else [] for n, name in enumerate(ALL)},
    "H082-star": {name: ALL[:1] if n else [] for n, name in enumerate(ALL)},
    "H082-full": {name: ALL[:n] for n, name in enumerate(ALL)},
}


@pytest.mark.parametrize("edges", GOOD.values(), ids=GOOD)
def test_what_has_an_order_has_it_soon(tmp_path: Path, edges: dict[str, list[str]]) -> None:
    found = judge_payload(graph(edges), ask(tmp_path))
    assert isinstance(found, StoredImage), found
    began = time.process_time()
    waves = start_order(found.manifest.services)
    assert time.process_time() - began < 0.05
    assert sum(map(len, waves)) == len(edges)


@pytest.mark.parametrize("shuffles", [1000], ids=["H086-same-order-whatever-the-manifest's"])
def test_the_order_does_not_depend_on_the_manifest(tmp_path: Path, shuffles: int) -> None:
    found: Any = judge_payload(graph(dict(list(GOOD["H082-star"].items())[:8])), ask(tmp_path))
    services, dice = list(found.manifest.services), random.Random(1)  # noqa: S311 - repeatable
    first = start_order(services)
    for _ in range(shuffles):
        dice.shuffle(services)
        assert start_order(services) == first
