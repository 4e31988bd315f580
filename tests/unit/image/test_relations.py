"""What cannot be between the services of a manifest."""

from typing import Any

import pytest

from extsloader.image.relations import find_relation_problems
from extsloader.model.reasons import Code


def find(*services: dict[str, Any]) -> list[tuple[Code, str]]:
    return list(find_relation_problems({"services": list(services)}))


def test_nothing_is_wrong_with_stages_that_go_upwards_and_rivals_that_exist() -> None:
    assert not find(
        {"name": "a", "conflicts": ["c"]},
        {"name": "b", "requires": ["a"], "stage": 1},
        {"name": "c", "stage": 1},
    )


@pytest.mark.parametrize("kind", ["requires", "wants", "after", "conflicts"])
def test_nobody_is_needed_or_fought_who_is_not_there(kind: str) -> None:
    assert find({"name": "a", kind: ["ghost"]}) == [
        (Code.DAG, f"service a: {kind} 'ghost', not there")
    ]


def test_a_service_cannot_fight_itself_or_what_it_requires() -> None:
    expected = "which it cannot do without"
    assert find({"name": "a", "conflicts": ["a"]}) == [
        (Code.DAG, f"service a: conflicts 'a', {expected}")
    ]
    both = {"name": "a", "conflicts": ["b"], "requires": ["b"]}
    assert find(both, {"name": "b"}) == [(Code.DAG, f"service a: conflicts 'b', {expected}")]


@pytest.mark.parametrize("kind", ["requires", "wants", "after"])
def test_waiting_for_a_later_stage_would_last_for_ever(kind: str) -> None:
    found = find({"name": "a", "stage": 1, kind: ["b"]}, {"name": "b", "stage": 2})
    assert found == [(Code.DAG, f"service a: {kind} 'b', of the later stage 2")]


def test_what_is_no_stage_or_no_list_is_somebody_elses_finding() -> None:
    assert not find({"name": "a", "requires": ["b"]}, {"name": "b", "stage": "last"})
    assert not find({"name": "a", "requires": "b", "conflicts": [7]})
