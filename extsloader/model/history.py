"""What the agent remembers across its own end and across reboots, as its state file holds it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from extsloader.model.events import Cause
from extsloader.model.ids import Digest, ServiceName
from extsloader.model.reasons import Problem
from extsloader.model.status import Change


class Ending(StrEnum):
    """What a run of the agent wrote last about itself."""

    RUNNING = "running"  # it had no chance to write more: killed, crashed or cut off
    STOPPED = "stopped"
    HANDED_OVER = "handed-over"  # to the agent that it turned itself into


class Hold(StrEnum):
    """Why an operator keeps a service from running."""

    STOPPED = "stopped"  # until it is started, or the device boots
    PAUSED = "paused"  # until it is resumed, also across reboots


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRecord:
    """One service of one image."""

    digest: Digest
    phase: str  # of `ServicePhase`
    restarts: int = 0
    failures: int = 0  # in a row
    last_exit: Cause | None = None
    problem: Problem | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The content of the file `history` below `paths.state`."""

    boot: str = ""  # random id of the boot (random(4)) in which it was written
    started: float = 0.0  # wall clock, seconds since 1970
    ended: Ending = Ending.RUNNING
    starts: int = 0  # in a row that had no clean minute and no polite end, this one included
    good: Digest | None = None  # the last image that ran well for a while
    failed: tuple[Digest, ...] = ()  # images that were left for another one, the newest last
    holds: Mapping[ServiceName, Hold] = field(default_factory=dict)
    services: Mapping[ServiceName, ServiceRecord] = field(default_factory=dict)
    changes: Mapping[str, tuple[Change, ...]] = field(default_factory=dict)
    # by service, and by the kind of everything else; the newest of each
