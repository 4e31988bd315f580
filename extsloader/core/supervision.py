"""How a service moves: one table for facts, one for orders.

`FACTS` says where a report leads from each phase. `ORDERS` says what is done about a phase that
is not what is wanted. Whether a service is wanted is no part of its phase: "to be stopped while
it is being created" is (creating, not wanted), which waits for the report and then goes on.

A service is wanted while its image is, while its conditions are met, while everything that it
requires is wanted and has not given up, and while no rival that goes before it is there. A
requirement that crashes and is being restarted does not stop its dependants: they keep running,
and the status says what they miss.

Reports carry the number of the run that they are about; those of an earlier run change nothing.
A report that the table does not know is a bug of ours: IllegalTransitionError, nothing changes.
"""

from enum import StrEnum

from extsloader.model.errors import IllegalTransitionError
from extsloader.model.world import ServicePhase as P


class Fact(StrEnum):
    """What the machine reports about a service."""

    CREATED = "created"
    ADOPTED = "adopted"  # it runs since before the agent started
    STARTED = "started"
    READY = "ready"
    LATE = "late"  # it did not become ready in time
    UNHEALTHY = "unhealthy"  # it failed its health probes
    FAILED = "failed"  # an order about it failed
    EXITED = "exited"
    OVERSTAYED = "overstayed"  # the grace time is over
    REMOVED = "removed"
    DUE = "due"  # the back-off is over
    ASKED = "asked"  # an operator wants it to run now


class Order(StrEnum):
    """What is done about a service."""

    CREATE = "create"
    START = "start"
    STOP = "stop"
    REMOVE = "remove"


FACTS: dict[tuple[P, Fact], P] = {
    (P.CREATING, Fact.CREATED): P.CREATED,
    (P.CREATING, Fact.ADOPTED): P.STARTED,
    (P.CREATING, Fact.FAILED): P.REMOVING,
    (P.CREATING, Fact.EXITED): P.REMOVING,  # between two agents
    (P.CREATED, Fact.EXITED): P.REMOVING,
    (P.STARTING, Fact.STARTED): P.STARTED,
    (P.STARTING, Fact.FAILED): P.REMOVING,
    (P.STARTING, Fact.EXITED): P.STARTING,  # remembered: the start order is still in flight
    (P.STARTING, Fact.READY): P.STARTING,  # remembered: READY=1 may overtake the runtime's return
    (P.STARTED, Fact.READY): P.READY,
    (P.STARTED, Fact.LATE): P.STOPPING,
    (P.STARTED, Fact.EXITED): P.REMOVING,
    (P.READY, Fact.EXITED): P.REMOVING,
    (P.READY, Fact.UNHEALTHY): P.STOPPING,
    (P.STOPPING, Fact.EXITED): P.REMOVING,
    (P.STOPPING, Fact.OVERSTAYED): P.KILLING,
    (P.KILLING, Fact.EXITED): P.REMOVING,
    (P.KILLING, Fact.OVERSTAYED): P.REMOVING,  # not even SIGKILL: removal reports what is left
    (P.BACKING_OFF, Fact.DUE): P.DUE,
    (P.BACKING_OFF, Fact.ASKED): P.DUE,
    (P.PARKED, Fact.ASKED): P.DUE,
    (P.FINISHED, Fact.ASKED): P.DUE,
}
"""REMOVED is missing: it leads to the phase that was decided when the end was reported."""

ORDERS: dict[tuple[P, bool], Order | None] = {
    (P.IDLE, True): Order.CREATE,
    (P.IDLE, False): None,
    (P.CREATING, True): None,
    (P.CREATING, False): None,
    (P.CREATED, True): Order.START,
    (P.CREATED, False): Order.REMOVE,
    (P.STARTING, True): None,
    (P.STARTING, False): None,
    (P.STARTED, True): None,
    (P.STARTED, False): Order.STOP,
    (P.READY, True): None,
    (P.READY, False): Order.STOP,
    (P.STOPPING, True): None,
    (P.STOPPING, False): None,
    (P.KILLING, True): None,
    (P.KILLING, False): None,
    (P.REMOVING, True): None,
    (P.REMOVING, False): None,
    (P.BACKING_OFF, True): None,
    (P.BACKING_OFF, False): Order.REMOVE,
    (P.DUE, True): Order.CREATE,
    (P.DUE, False): Order.REMOVE,  # its mounts are still there: it is not idle
    (P.PARKED, True): None,
    (P.PARKED, False): Order.REMOVE,
    (P.FINISHED, True): None,
    (P.FINISHED, False): Order.REMOVE,
}

LEADS_TO: dict[Order, P] = {
    Order.CREATE: P.CREATING,
    Order.START: P.STARTING,
    Order.STOP: P.STOPPING,
    Order.REMOVE: P.REMOVING,
}
"""Where an order leads at once, before anything is reported."""

UP = frozenset({P.STARTING, P.STARTED, P.READY, P.STOPPING, P.KILLING})
"""Its processes may run."""

SETTLED = frozenset({P.READY, P.FINISHED})
"""What requires it may start."""

ENDED = SETTLED | {P.BACKING_OFF, P.PARKED, P.REMOVING}
"""What only wants it, or comes after it, need not wait any longer."""


OUT = frozenset({P.PARKED, P.FINISHED})
"""It has had its turn: a rival that yields to it may run."""


def next_phase(phase: P, fact: Fact) -> P:
    """Where the fact leads. Raises IllegalTransitionError."""
    try:
        return FACTS[phase, fact]
    except KeyError:
        raise IllegalTransitionError(f"a service that is {phase} cannot be {fact}") from None


def order_for(phase: P, *, wanted: bool) -> Order | None:
    """What is to be done about a service in this phase, if anything."""
    return ORDERS[phase, wanted]
