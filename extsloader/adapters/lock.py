"""One agent for one run directory."""

import errno
import fcntl
import os
import stat
from pathlib import Path

from extsloader.model.errors import MachineError
from extsloader.model.reasons import Code

# No link is followed, which could create a file anywhere, and a FIFO does not make `open` wait.
_LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def take_lock(run: str) -> int:
    """Lock the run directory, made if needed; the kernel lets go when this process ends.

    Returns the descriptor to keep. Raises MachineError(E_BUSY) while another agent lives.
    """
    directory = Path(run)
    try:
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        descriptor = os.open(directory / "lock", _LOCK, 0o600)
    except OSError as error:
        link = error.errno == errno.ELOOP
        reason = "it is a symbolic link" if link else os.strerror(error.errno or 0).lower()
        raise _refuse(run, reason) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _refuse(run, "it is no regular file")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise MachineError(
            Code.BUSY,
            "start a second agent",
            f"one runs already with {run}",
            "stop it first, or use another --root",
        ) from error
    return descriptor


def _refuse(run: str, reason: str) -> MachineError:
    return MachineError(Code.STATE, f"lock {run}/lock", reason, "look at what lies there")
