"""The tables of an image's life."""

import pytest

from extsloader.core.lifecycle import FACTS, LEADS_TO, ORDERS, Fact, Order, next_phase, order_for
from extsloader.model.errors import IllegalTransitionError
from extsloader.model.world import ImagePhase as P


def ways_out(phase: P) -> set[P]:
    facts = {after for (before, _), after in FACTS.items() if before is phase}
    orders = {LEADS_TO[o] for (p, _), o in ORDERS.items() if p is phase and o is not None}
    return facts | orders


def test_there_is_a_row_for_every_phase_wanted_or_not() -> None:
    assert set(ORDERS) == {(phase, wanted) for phase in P for wanted in (True, False)}
    assert set(LEADS_TO) == set(Order)
    assert {fact for _, fact in FACTS} == set(Fact)


def test_every_phase_can_be_reached_and_has_a_way_out() -> None:
    reached, new = set[P](), {P.STORED}
    while new:
        reached |= new
        new = {after for phase in new for after in ways_out(phase)} - reached
    assert reached == set(P)
    assert all(ways_out(phase) for phase in P)


@pytest.mark.parametrize("phase", P)
def test_an_order_in_flight_is_waited_for(phase: P) -> None:
    in_flight = phase in set(LEADS_TO.values())
    assert in_flight == any(before is phase for before, _ in FACTS if before is not P.BROKEN)
    if in_flight:
        assert order_for(phase, wanted=True) is order_for(phase, wanted=False) is None


def test_a_report_that_cannot_be_true_is_a_bug() -> None:
    assert next_phase(P.MOUNTING, Fact.MOUNTED) is P.MOUNTED
    with pytest.raises(IllegalTransitionError, match="an image that is stored cannot be mounted"):
        next_phase(P.STORED, Fact.MOUNTED)
