"""Where the output of services goes: to LinuxKit's memlogd, else into files (ADR 17).

Neither needs the agent: memlogd reads from the service itself, and conmon writes the files.
"""

import os
import socket
from contextlib import suppress
from pathlib import Path

from extsloader.model.ids import ServiceName
from extsloader.model.text import printable

LINES = 5
MAX_BYTES = 8 << 10  # read from the end of the file
FIELDS = 4  # time, stream, F for a full or P for a partial line, text


class ServiceLogs:
    """`LogPort`: `<service>.log`, and `<service>.log.1` with what was written before it.

    conmon starts a full file anew by renaming another one over it. A second link to the full one,
    `.<service>.log`, keeps it until `keep` gives it the name of the older one.
    """

    def __init__(self, directory: str, size: int, memlogd: str = "") -> None:
        """`size` is in bytes, of one file; `memlogd` is the socket that takes descriptors."""
        self._directory = Path(directory)
        self._size = size
        self._memlogd = memlogd

    def pass_on(self, service: ServiceName, output: int, errors: int) -> bool:
        """As `LogPort.pass_on`, under the names that LinuxKit gives the streams of a service."""
        if not self._memlogd:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
                sender.connect(self._memlogd)
                socket.send_fds(sender, [f"{service}.out".encode()], [output])
                socket.send_fds(sender, [service.encode()], [errors])
        except OSError:  # nobody is there, or does not listen
            return False
        for path in (self._kept(service), self._older(service), self._path(service)):
            path.unlink(missing_ok=True)
        return True

    def make_room(self, service: ServiceName) -> tuple[str, int]:
        """As `LogPort.make_room`.

        conmon counts only what it writes itself: without this, each restart of a crashing service
        would make its file longer.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(service)
        left = self._size - (path.stat().st_size if path.exists() else 0)
        if left < self._size // 2:
            self._turn(service)
            path.unlink()
            left = self._size
        return f"{path}", left

    def keep(self) -> None:
        """Keep the files that conmon has started anew since the last call. Raises nothing."""
        with suppress(OSError):  # no descriptor is left to list them
            for path in self._directory.glob("[!.]*.log"):
                with suppress(OSError):
                    self._turn(ServiceName(path.stem))

    def read_tail(self, service: ServiceName) -> tuple[str, ...]:
        """At most five lines, oldest first, with escapes for what drives terminals.

        None where there is no log.
        """
        with suppress(OSError):
            self._turn(service)
        lines: tuple[str, ...] = ()
        for path in (self._path(service), self._older(service)):
            if len(lines) < LINES:
                with suppress(OSError):
                    lines = _parse(_read_end(path)) + lines
        return tuple(printable(line) for line in lines[-LINES:])

    def describe(self, service: str) -> str:
        """Where to look for what a service has written."""
        path = self._path(service)
        if self._memlogd and not path.exists():
            return f"memlogd's, as {service} and {service}.out"
        return f"{path}"

    def _turn(self, service: ServiceName) -> None:
        """Name the older file, once there is another current one. Raises OSError."""
        path, kept = self._path(service), self._kept(service)
        if _inode(path) == _inode(kept):
            return
        if kept.exists():
            kept.replace(self._older(service))
            kept.unlink(missing_ok=True)  # rename(2) does nothing with two links to one file
        with suppress(FileNotFoundError):
            kept.hardlink_to(path)

    def _path(self, service: str) -> Path:
        return self._directory / f"{service}.log"

    def _older(self, service: str) -> Path:
        return self._directory / f"{service}.log.1"

    def _kept(self, service: str) -> Path:
        return self._directory / f".{service}.log"


def _inode(path: Path) -> int | None:
    try:
        return path.lstat().st_ino
    except FileNotFoundError:
        return None


def _read_end(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        start = max(0, os.fstat(descriptor).st_size - MAX_BYTES)
        return os.pread(descriptor, MAX_BYTES, start)
    finally:
        os.close(descriptor)


def _parse(text: bytes) -> tuple[str, ...]:
    """A line that was cut at the front has too few fields and is left out."""
    # Not splitlines, which knows more ends of lines than the one that conmon writes.
    lines = (line.split(" ", FIELDS - 1) for line in text.decode(errors="replace").split("\n"))
    return tuple(fields[-1] for fields in lines if len(fields) == FIELDS)
