"""How an image moves: one table for facts, one for orders.

An image is wanted while it is the active one and the agent is not stopping. That is no part of
its phase: "to be unmounted while it is being mounted" is (mounting, not wanted), which waits for
the report. At most one order is in flight for an image, so an unmount never overtakes a mount.
"""

from enum import StrEnum

from extsloader.model.errors import IllegalTransitionError
from extsloader.model.world import ImagePhase as P


class Fact(StrEnum):
    """What the machine reports about an image."""

    MOUNTED = "mounted"
    FAILED = "failed"
    UNMOUNTED = "unmounted"
    PAUSED = "paused"  # long enough after a failure


class Order(StrEnum):
    """What is done about an image."""

    MOUNT = "mount"
    UNMOUNT = "unmount"  # once none of its services is left


FACTS: dict[tuple[P, Fact], P] = {
    (P.MOUNTING, Fact.MOUNTED): P.MOUNTED,
    (P.MOUNTING, Fact.FAILED): P.BROKEN,
    (P.UNMOUNTING, Fact.UNMOUNTED): P.STORED,
    (P.BROKEN, Fact.PAUSED): P.STORED,
}

ORDERS: dict[tuple[P, bool], Order | None] = {
    (P.STORED, True): Order.MOUNT,
    (P.STORED, False): None,
    (P.MOUNTING, True): None,
    (P.MOUNTING, False): None,
    (P.MOUNTED, True): None,
    (P.MOUNTED, False): Order.UNMOUNT,
    (P.UNMOUNTING, True): None,
    (P.UNMOUNTING, False): None,
    (P.BROKEN, True): None,
    (P.BROKEN, False): None,
}

AT_REST = frozenset({P.STORED, P.BROKEN})
"""Nothing of it is in the mount table, and nothing is on its way."""

LEADS_TO: dict[Order, P] = {Order.MOUNT: P.MOUNTING, Order.UNMOUNT: P.UNMOUNTING}
"""Where an order leads at once, before anything is reported."""


def next_phase(phase: P, fact: Fact) -> P:
    """Where the fact leads. Raises IllegalTransitionError."""
    try:
        return FACTS[phase, fact]
    except KeyError:
        raise IllegalTransitionError(f"an image that is {phase} cannot be {fact}") from None


def order_for(phase: P, *, wanted: bool) -> Order | None:
    """What is to be done about an image in this phase, if anything."""
    return ORDERS[phase, wanted]
