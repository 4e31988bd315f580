"""One agent for one run directory."""

import fcntl
import os
from pathlib import Path

from extsloader.model.errors import MachineError
from extsloader.model.reasons import Code


def take_lock(run: str) -> int:
    """Lock the run directory, made if needed; the kernel lets go when this process ends.

    Returns the descriptor to keep. Raises MachineError(E_BUSY) while another agent lives.
    """
    directory = Path(run)
    try:
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise MachineError(
            Code.STATE, f"lock {run}", os.strerror(error.errno or 0).lower()
        ) from error
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
