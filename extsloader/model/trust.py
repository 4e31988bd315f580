"""What a device remembers about images, so that old ones and twins cannot come back."""

from dataclasses import dataclass
from enum import StrEnum

from extsloader.model.ids import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One sequence of one channel; images of the same name are a channel."""

    name: str
    sequence: int
    digest: str = ""  # of the image that had it; "": of any


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What is kept across restarts, in several places."""

    floors: tuple[Release, ...] = ()  # the highest that ran well: nothing lower is accepted
    accepted: tuple[Release, ...] = ()  # the highest that was ever accepted, well or not
    key_epoch: int = 0  # the highest of the key sets that have vouched for an image
    lost: bool = False  # what was remembered before is lost, and no floor was reached since


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """All that limits what may be accepted, apart from keys and settings."""

    memory: Memory = Memory()
    baked: tuple[Release, ...] = ()  # floors that the core image brings along
    revoked: frozenset[Digest] = frozenset()  # images that the device's policy names
    clock: float = 0.0  # seconds since 1970: an earlier wall clock is wrong


class Flag(StrEnum):
    """What is not as it should be and stops nothing."""

    FLOOR_LOST = "floor-lost"  # only the floors of the core image hold
    FLOOR_IMPLAUSIBLE = "floor-implausible"  # so high that no image can follow
    FLOOR_OPEN = "floor-not-tamper-evident"  # no TPM holds it
    CLOCK_UNSURE = "clock-unsure"  # the clock shows a time that has passed already
    STALE = "stale"  # the active image has expired
    RETIRED_KEY = "signed-by-retired"  # the active image is accepted only because it was before
