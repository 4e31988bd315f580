"""How good or bad a state is: journal, tables and colours agree on it."""

from enum import IntEnum


class Severity(IntEnum):
    """Higher is worse."""

    GOOD = 0  # as wanted
    PASSING = 1  # on its way, or waiting
    WARNING = 2  # not as wanted; the agent still works on it, or it was to be expected
    ERROR = 3  # not as wanted, and nothing changes without help


GOOD = frozenset(
    {"ready", "verified", "mounted", "finished", "stored", "disabled", "skipped", "open"}
)
WARNING = frozenset(
    {"backing-off", "degraded", "retrying", "killing", "refused", "denied", "deferred"}
)
ERROR = frozenset({"failed", "parked", "broken", "damaged"})


def severity(state: str) -> Severity:
    """Of any state of agent, image, candidate or service; an unknown one is on its way."""
    if state in GOOD:
        return Severity.GOOD
    if state in WARNING:
        return Severity.WARNING
    return Severity.ERROR if state in ERROR else Severity.PASSING
