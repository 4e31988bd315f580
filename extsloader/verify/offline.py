"""Verification of a file by hand: the same code as on the device, without store and daemon."""

import os

from extsloader.model.errors import ImageRefusedError
from extsloader.model.helper import Request
from extsloader.model.ids import SourceId
from extsloader.model.machine import Machine
from extsloader.model.manifest import StoredImage
from extsloader.model.reasons import Problem
from extsloader.model.source import Source, SourceKind, file_generation
from extsloader.verify.identity import refusal
from extsloader.verify.pipeline import verify_in_place


def verify_file(
    path: str,
    keys: str,
    *,
    root_hash: str = "",
    wall: float | None = None,
    machine: Machine | None = None,
) -> StoredImage | Problem:
    """What a good image is and who vouches for it, or why it is refused.

    Without `wall` (seconds since 1970) the time is not judged, without `machine` not the device.
    """
    try:
        request = Request(
            source=_source(path),
            machine=machine,
            keys=keys,
            root_hash=root_hash,
            wall=wall or 0.0,
            clock_floor=1.0 if wall is None else 0.0,  # a clock below its floor refuses nothing
        )
        return verify_in_place(request, lambda _done, _total: None)
    except ImageRefusedError as error:
        return error.problem


def _source(path: str) -> Source:
    unseen = Source(id=SourceId(path, ""), kind=SourceKind.FILE, size=0)
    try:
        status = os.lstat(path)
    except OSError as error:
        raise refusal(unseen, error) from error
    generation = file_generation(status.st_ino, status.st_size, status.st_ctime_ns)
    return Source(id=SourceId(path, generation), kind=SourceKind.FILE, size=status.st_size)
