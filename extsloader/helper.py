"""`python -m extsloader.helper ROOT [CONFIG]`: checks the settings, stays, and forks helpers.

A process of its own, because pydantic costs the daemon 10 MB for one second's work. Verifying
needs pydantic as well: on a small device that boots, starting Python anew and loading everything
once more takes seconds for each medium (docs/adr/0026-the-settings-process-stays.md).
"""

import gc
import os
import select
import signal
import socket
import sys
from dataclasses import asdict

import msgspec

PATIENCE = 30.0  # seconds that an unused process may cost its memory
MAX_JOB = 16  # bytes


def main() -> int:
    """Exit code 1 after a list of problems; else 0, or that of a helper in its fork."""
    gc.disable()  # what is loaded stays; looking for garbage in it takes a tenth of the time
    from extsloader.settings.check import check  # noqa: PLC0415 - see above

    root, *config = sys.argv[1:]  # no parser: it takes 5 ms to load
    settings, problems = check(config[0] if config else None, root, os.environ)
    with socket.socket(fileno=os.dup(sys.stdin.fileno())) as channel:
        if settings is None:
            channel.send(msgspec.json.encode([asdict(problem) for problem in problems]))
            return 1
        channel.send(settings.model_dump_json().encode())
        os.chdir("/")
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the daemon watches the forks by pidfds
        return stay(channel)


def stay(channel: socket.socket, patience: float = PATIENCE) -> int:
    """Load what helpers need, which takes longest, and fork one for each that is asked for.

    Nothing but the daemon's packets is read here; a fork has nothing of this process's to say to
    the daemon, reads one medium, and takes its rights from itself before it does.
    """
    import extsloader.verify.trust  # noqa: F401, PLC0415 - the settings must not wait for it
    from extsloader.verify.__main__ import main as serve  # noqa: PLC0415

    gc.freeze()
    gc.enable()
    while select.select([channel], [], [], patience)[0] or _has_children():
        if not select.select([channel], [], [], 0)[0]:
            continue
        job, descriptors, _, _ = socket.recv_fds(channel, MAX_JOB, 1)
        if not descriptors:
            break  # the daemon is gone
        if os.fork() == 0:
            channel.close()
            try:
                _become_helper(*descriptors)
            except ConnectionError:
                return 1  # it was called off meanwhile
            return serve(job.decode())
        os.close(*descriptors)
    return 0


def _become_helper(descriptor: int) -> None:
    """The socket is standard input, and what goes out first is what we can be killed with."""
    os.setsid()
    os.dup2(descriptor, sys.stdin.fileno())
    with socket.socket(fileno=descriptor) as channel:
        pidfd = os.pidfd_open(os.getpid())
        socket.send_fds(channel, [b"forked"], [pidfd])
        os.close(pidfd)


def _has_children() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
