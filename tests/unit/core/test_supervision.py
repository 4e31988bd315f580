"""The tables of a service's life."""

import pytest

from extsloader.core.supervision import (
    ENDED,
    FACTS,
    LEADS_TO,
    ORDERS,
    SETTLED,
    UP,
    Fact,
    Order,
    next_phase,
    order_for,
)
from extsloader.model.errors import IllegalTransitionError
from extsloader.model.world import ServicePhase as P

DECIDED_EARLIER = {P.BACKING_OFF, P.PARKED, P.FINISHED, P.IDLE}
"""Where a removal may lead to."""


def ways_out(phase: P) -> set[P]:
    facts = {after for (before, _), after in FACTS.items() if before is phase}
    orders = {LEADS_TO[o] for (p, _), o in ORDERS.items() if p is phase and o is not None}
    return (facts | orders | (DECIDED_EARLIER if phase is P.REMOVING else set())) - {phase}


def test_there_is_a_row_for_every_phase_wanted_or_not() -> None:
    assert set(ORDERS) == {(phase, wanted) for phase in P for wanted in (True, False)}
    assert set(LEADS_TO) == set(Order)
    assert {fact for _, fact in FACTS} == set(Fact) - {Fact.REMOVED}


def test_every_phase_can_be_reached_from_idle() -> None:
    reached, new = set[P](), {P.IDLE}
    while new:
        reached |= new
        new = {after for phase in new for after in ways_out(phase)} - reached
    assert reached == set(P)


@pytest.mark.parametrize("phase", P)
def test_every_phase_has_a_way_out_that_leads_back_to_idle(phase: P) -> None:
    reached, new = set[P](), {phase}
    while new:
        reached |= new
        new = {after for one in new for after in ways_out(one)} - reached
    assert P.IDLE in reached
    assert ways_out(phase)


def test_a_service_that_is_not_wanted_always_comes_to_rest_at_idle() -> None:
    for phase in P:
        order = order_for(phase, wanted=False)
        assert order in (None, Order.STOP, Order.REMOVE)
        awaited = any(before is phase for before, _ in FACTS) or phase is P.REMOVING
        assert order is not None or awaited or phase is P.IDLE


def test_only_a_removal_makes_idle_as_only_it_takes_the_mounts_away() -> None:
    assert P.IDLE not in FACTS.values()
    assert P.IDLE not in LEADS_TO.values()


def test_a_service_that_may_run_is_never_removed_without_being_stopped() -> None:
    for phase in UP:
        for wanted in (True, False):
            assert order_for(phase, wanted=wanted) in (None, Order.STOP)


def test_what_has_ended_does_not_run_any_more() -> None:
    assert SETTLED <= ENDED
    assert not (ENDED - SETTLED) & UP


def test_a_fact_leads_where_the_table_says() -> None:
    assert next_phase(P.STARTED, Fact.READY) is P.READY


def test_an_impossible_fact_names_phase_and_fact() -> None:
    with pytest.raises(IllegalTransitionError, match="is idle cannot be started"):
        next_phase(P.IDLE, Fact.STARTED)
