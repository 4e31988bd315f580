"""What the daemon and its short-lived helpers say to each other: one question, some answers.

Each message is one packet of JSON on a unix socket that is the helper's standard input; the
descriptor of a stored image comes with the answer that needs it (SCM_RIGHTS).
"""

from dataclasses import dataclass

from extsloader.model.machine import Machine
from extsloader.model.manifest import StoredImage
from extsloader.model.reasons import Problem
from extsloader.model.source import Source, Superblock
from extsloader.model.trust import Release

MAX_MESSAGE = 200 << 10  # bytes; below the default socket buffer of 208 KiB (socket(7), wmem_max)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The question. A probe needs the source only."""

    source: Source
    files: tuple[str, ...] = ()  # names of images in the root directory of a vfat or ext4
    machine: Machine | None = None  # None: is not compared with what the image is for
    keys: str = ""  # directory of the keys that are accepted
    root_hash: str = ""  # file that names the one image that needs no signature
    store: str = ""  # directory of verified images
    wall: float = 0.0  # seconds since 1970, read once so that a slow copy changes no verdict
    clock_floor: float = 0.0  # an earlier wall clock is wrong
    floors: tuple[Release, ...] = ()  # nothing lower is accepted on these channels
    accepted: tuple[Release, ...] = ()  # no other image may have these sequences
    baked: tuple[Release, ...] = ()  # floors that a newer key set sets anew
    key_epoch_seen: int = 0  # the highest of a key set that has vouched for an image
    min_rate: int = 0  # bytes a second that the medium must deliver
    reserve: int = 16 << 20  # bytes of the store's disk that must stay free


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """So many bytes are copied."""

    done: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Exactly one of these is set; all but `progress` are the last word."""

    progress: Progress | None = None
    superblock: Superblock | None = None
    verified: StoredImage | None = None
    refused: Problem | None = None
