"""Programs that this adapter leaves some of its work to."""

import subprocess
from contextlib import suppress
from types import MappingProxyType
from typing import Final

from extsloader.model.errors import MachineError
from extsloader.model.reasons import Code

_ENVIRONMENT: Final = MappingProxyType(
    {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
)
_DEADLINE: Final = 30.0  # seconds; 0.2 s in an emulated machine, more while udevd is busy


def run(stage: str, *argv: str, hint: str = "") -> str:
    """What the program prints. Raises MachineError (E_MOUNT, E_TIMEOUT) with its complaints."""
    try:
        done = subprocess.run(
            argv,
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            start_new_session=True,
            timeout=_DEADLINE,
        )
    except FileNotFoundError as error:
        raise MachineError(Code.MOUNT, stage, f"there is no program {argv[0]}", hint) from error
    except subprocess.TimeoutExpired as error:
        reason = f"{argv[0]} took longer than {_DEADLINE:.0f} s"
        raise MachineError(Code.TIMEOUT, stage, reason, hint) from error
    if done.returncode:
        said = "; ".join(done.stderr.decode(errors="replace").splitlines())
        reason = f"{argv[0]} ended with {done.returncode}: {said}"
        raise MachineError(Code.MOUNT, stage, reason, hint)
    return done.stdout.decode(errors="replace")


def settle_udev() -> None:
    """Wait until udevd, if there is one, has looked at all that changed: it opens devices."""
    with suppress(MachineError):
        run("wait for udevd", "udevadm", "settle", "--timeout=10")
