"""What happened from the agent's start until the device was ready, as `/v1/timeline` tells it.

Structs, as they cost the agent's start next to nothing (see `model.events`).
"""

from enum import StrEnum

from msgspec import Struct

NOTED = 512
"""Changes kept for it: a start of 50 services has about 250."""


class Pace(StrEnum):
    """What a phase means for the time that a start takes."""

    BUSY = "busy"  # something is being done
    WAITS = "waits"  # for others, for a helper, or for its next try
    RESTS = "rests"  # there is nothing to be done


class Phase(Struct, frozen=True, kw_only=True):
    """One state of one thing; seconds since the agent's start."""

    name: str
    pace: Pace
    begin: float
    end: float | None = None  # None: it was so until the end of the timeline


class Row(Struct, frozen=True, kw_only=True):
    """One thing, as `Change.subject` names it."""

    subject: str
    phases: tuple[Phase, ...]
    done: float | None = None  # when it was first ready, verified, refused, mounted ...
    took: float = 0.0  # seconds until then in which it was busy


class Timeline(Struct, frozen=True, kw_only=True):
    """Durations are of a clock that nobody sets."""

    started: float  # wall clock, seconds since 1970
    after_boot: float  # seconds from boot to the agent's start
    ready: float | None = None  # seconds since the agent's start; None: it was not ready yet
    until: float  # where it ends: when it was ready, or at the last that is known
    cut: bool = False  # more changed before it was ready than is kept
    critical_path: tuple[str, ...] = ()  # subjects; each waited for the one before it
    rows: tuple[Row, ...] = ()  # in the order in which they began
