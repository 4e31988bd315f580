"""The socket of a publication in the file system."""

import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

from extsloader.model.errors import MachineError
from extsloader.model.reasons import Code

STAGE = "publish the status for Pillar"
BACKLOG = 16
KIND = socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK


def listen(path: Path) -> socket.socket:
    """A listening socket; a dead one in its place is replaced.

    Raises MachineError: E_BUSY while another publisher of the same name lives. An agent in Go
    that finds its name taken reboots the device; this one only does not start.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_way(path)
        listener = socket.socket(socket.AF_UNIX, KIND)
        try:
            listener.bind(str(path))
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        reason = (error.strerror or str(error)).lower()  # a path that is too long has no errno
        raise MachineError(Code.IO, STAGE, f"{path}: {reason}") from error
    return listener


def _make_way(path: Path) -> None:
    """Raises OSError, MachineError."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        hint = "look at what it is, and remove it"
        raise MachineError(Code.PATH, STAGE, f"{path} exists and is not a socket", hint)
    if _is_live(path):
        hint = "stop the other one: the proof of concept and this agent exclude each other"
        raise MachineError(Code.BUSY, STAGE, f"another publisher answers at {path}", hint)
    with suppress(FileNotFoundError):
        path.unlink()


def _is_live(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, KIND) as probe:
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:  # EAGAIN: its backlog is full; EPROTOTYPE: it speaks otherwise
            return True
        return True
