"""The last words of a service, from the log that conmon keeps (the CRI's format)."""

import os
from contextlib import suppress
from pathlib import Path

from extsloader.model.ids import ServiceName

LINES = 5
MAX_BYTES = 8 << 10  # read from the end of the file
FIELDS = 4  # time, stream, F for a full or P for a partial line, text


class ServiceLogs:
    """`<directory>/<service>.log`."""

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)

    def read_tail(self, service: ServiceName) -> tuple[str, ...]:
        """At most five lines, oldest first; none where there is no log.

        Whoever shows them has to escape what drives terminals.
        """
        with suppress(OSError):
            return _parse(_read_end(self._directory / f"{service}.log"))
        return ()


def _read_end(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        start = max(0, os.fstat(descriptor).st_size - MAX_BYTES)
        return os.pread(descriptor, MAX_BYTES, start)
    finally:
        os.close(descriptor)


def _parse(text: bytes) -> tuple[str, ...]:
    """A line that was cut at the front has too few fields and is left out."""
    lines = (line.split(" ", FIELDS - 1) for line in text.decode(errors="replace").splitlines())
    return tuple(fields[-1] for fields in lines if len(fields) == FIELDS)[-LINES:]
