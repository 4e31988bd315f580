"""Starts the agent without what it never uses: the entry point of `extsloaderd`.

asyncio imports ssl wherever it can, structlog draws tracebacks with rich where it is installed,
and hashlib takes OpenSSL's functions. The agent speaks over unix sockets, logs plain lines and
hashes a few kilobytes; without these it is 4.4 MB (ssl), 3 MB (OpenSSL's hashes) and up to 4.5 MB
(rich) smaller, and without what shutil and msgspec take along another 0.7 MB. All of them do
without when the import fails; hashlib then has Python's own functions.
"""

import os
import signal
import sys
from ctypes import util

UNUSED = ("ssl", "rich", "_hashlib", "bz2", "lzma", "typing_extensions")
LIBRARIES = {"udev": "libudev.so.1"}
"""What pyudev looks for. Python would ask ldconfig, a compiler and a linker for the names, in
processes of their own, and a device need not have any of them."""
PYTHONS = {signal.SIGPIPE, signal.SIGXFSZ}
"""Python ignores these itself."""
HELD_BACK = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


def main() -> int:
    """Run `extsloader.daemon` in a process that cannot import what it does not need."""
    begin_afresh()
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


def begin_afresh() -> None:
    """Be as a service manager would have started us, whoever did; services inherit from us."""
    # Until the agent handles them: a stop in the first moments must not kill it with its
    # predecessor's services still running, and the other two must not kill it at all.
    signal.pthread_sigmask(signal.SIG_SETMASK, HELD_BACK)
    # Without SIGCHLD, for one, the kernel collects our children before we can (wait(2), NOTES).
    for ignorable in signal.valid_signals() - PYTHONS:
        if signal.getsignal(ignorable) is signal.SIG_IGN:
            signal.signal(ignorable, signal.SIG_DFL)
    os.umask(0o022)
    for number in range(3):  # else our first files are what somebody takes for standard error
        if not _is_open(number):
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.getfilesystemencoding() != "utf-8":  # a path in the settings is
        argv = (sys.executable, "-X", "utf8", *sys.orig_argv[1:])
        os.execv(sys.executable, argv)  # noqa: S606 - ourselves, without a shell


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
