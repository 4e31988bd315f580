"""Starts the agent without what it never uses: the entry point of `extsloaderd`.

asyncio imports ssl wherever it can, structlog draws tracebacks with rich where it is installed,
and hashlib takes OpenSSL's functions. The agent speaks over unix sockets, logs plain lines and
hashes a few kilobytes; without these it is 4.4 MB (ssl) and up to 4.5 MB (rich) smaller. All of
them do without when the import fails; hashlib then has Python's own functions.
"""

import os
import signal
import sys
from ctypes import util

UNUSED = ("ssl", "rich", "_hashlib")
LIBRARIES = {"udev": "libudev.so.1"}
"""What pyudev looks for. Python would ask ldconfig, a compiler and a linker for the names, in
processes of their own, and a device need not have any of them."""
HELD_BACK = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


def main() -> int:
    """Run `extsloader.daemon` in a process that cannot import what it does not need."""
    # Until the agent handles them: a stop in the first moments must not kill it with its
    # predecessor's services still running, and the other two must not kill it at all.
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    for name in UNUSED:
        sys.modules[name] = None  # type: ignore[assignment] # the documented way to forbid it
    util.find_library = LIBRARIES.get  # type: ignore[assignment] # of one argument, too
    environment = dict(os.environ)  # the agent takes the service manager's variables out
    from extsloader.daemon import main as run  # noqa: PLC0415 - after the lines above
    from extsloader.model.isolation import HANDED_OVER  # noqa: PLC0415

    status = run()
    if status == HANDED_OVER:
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
        # The same process for the service manager, with whatever code is installed by now.
        os.execve(sys.executable, sys.orig_argv, environment)  # noqa: S606 - no shell is wanted
    return status


if __name__ == "__main__":
    sys.exit(main())
