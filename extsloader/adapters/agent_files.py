"""The files by which EVE's Pillar knows an agent: pid, watchdog, overrides, state (`docs/eve.md`).

All of them are below /run, which is memory.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from extsloader.model.errors import MachineError
from extsloader.model.pillar import AGENT
from extsloader.model.reasons import Code

HOMES = (AGENT, "zedbox")  # the proof of concept runs inside zedbox
MAX_OVERRIDES, MAX_WORD = 64, 32  # files, and bytes of one
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class AgentFiles:
    """`AgentFilesPort` below one directory of all agents."""

    def __init__(self, run: str) -> None:
        self._run = Path(run)
        self._pid = self._run / f"{AGENT}.pid"
        self._touch = self._run / f"{AGENT}.touch"
        self._registered = False

    def claim(self) -> None:
        """As `AgentFilesPort.claim`."""
        with _explain(f"write {self._pid}"):
            if (other := self._find_other()) is not None:
                raise MachineError(
                    Code.BUSY,
                    "start beside another agent",
                    f"{self._pid} names process {other}, which lives",
                    "stop the other one: the proof of concept and this agent exclude each other",
                )
            # A line end would make Go's Atoi fail, and the watchdog would miss the process.
            _replace(self._pid, str(os.getpid()).encode(), 0o644)

    def register(self) -> None:
        """As `AgentFilesPort.register`: first the files, then that somebody looks at them."""
        self.touch()
        self._registered = True
        with _explain("register with the watchdog"):
            for marker in self._markers():
                marker.parent.mkdir(parents=True, exist_ok=True)
                marker.touch()

    def touch(self) -> None:
        """As `AgentFilesPort.touch`."""
        with _explain(f"touch {self._touch}"):
            self._touch.touch()

    def release(self) -> None:
        """As `AgentFilesPort.release`: otherwise the end of this process reboots the device."""
        for path in (*self._markers(), self._touch) if self._registered else ():
            with suppress(OSError):
                path.unlink()
        with suppress(OSError):
            if _read(self._pid) == str(os.getpid()).encode():
                self._pid.unlink()

    def read_slot(self) -> str:
        """As `AgentFilesPort.read_slot`."""
        with suppress(OSError):
            return _read(self._run / "eve.id").decode("ascii", "replace").strip()
        return ""

    def read_overrides(self) -> dict[str, str]:
        """As `AgentFilesPort.read_overrides`."""
        found: dict[str, str] = {}
        with suppress(OSError):
            for path in sorted((self._run / "eve-service-overrides").iterdir())[:MAX_OVERRIDES]:
                with suppress(OSError):  # gone meanwhile, or a link
                    found[path.name] = _read(path).decode("utf-8", "replace").strip()
        return found

    def write_state(self, content: bytes) -> None:
        """As `AgentFilesPort.write_state`."""
        path = self._run / f"{AGENT}-state.json"
        with _explain(f"write {path}"):
            _replace(path, content, 0o644)

    def _find_other(self) -> int | None:
        """The living agent that the pid file names; pids are used again, so its name counts."""
        try:
            text = _read(self._pid).strip()
        except FileNotFoundError:
            return None
        if not text.isdigit() or int(text) == os.getpid():
            return None
        try:
            command = Path(f"/proc/{int(text)}/cmdline").read_text(errors="replace")
        except OSError:
            return None
        return int(text) if any(home in command for home in HOMES) else None

    def _markers(self) -> tuple[Path, Path]:
        """A pid is only registered by who never ends by itself."""
        watchdog = self._run / "watchdog"
        return watchdog / "file" / self._touch.name, watchdog / "pid" / self._pid.name


@contextmanager
def _explain(stage: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise MachineError(Code.STATE, stage, f"{error.filename}: {reason}") from error


def _read(path: Path) -> bytes:
    """A bounded read that follows no link and does not wait at a FIFO. Raises OSError."""
    descriptor = os.open(path, _READ)
    try:
        return os.read(descriptor, MAX_WORD)
    finally:
        os.close(descriptor)


def _replace(path: Path, content: bytes, mode: int) -> None:
    """Readers see the old or the new one whole. Raises OSError."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, mode)
    try:
        os.write(descriptor, content)
    finally:
        os.close(descriptor)
    temporary.rename(path)
