"""A helper's end of the conversation with the daemon, and the limits that it puts on itself.

The socket is standard input, so a helper needs no arguments and no environment. An exception that
is no refusal ends the process with a traceback for the journal; the daemon reports E_HELPER.
"""

import array
import ctypes
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence

import msgspec

from extsloader.model.errors import ImageRefusedError
from extsloader.model.helper import MAX_MESSAGE, Answer, Progress, Request
from extsloader.model.reasons import Problem

Handler = Callable[[Request, Callable[[int, int], None]], tuple[Answer, Sequence[int]]]
"""Does the work; returns the last answer and the descriptors that go with it."""

PROGRESS_EVERY = 0.1  # seconds
MAX_TEXT = 4096  # characters of a problem's sentence

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38  # include/uapi/linux/prctl.h
_LIMITS = {
    resource.RLIMIT_AS: 1 << 30,  # a bomb hits this before it hits the device
    resource.RLIMIT_CPU: 900,  # seconds; beyond every deadline, for a daemon that lost us
    resource.RLIMIT_NOFILE: 64,
    resource.RLIMIT_CORE: 0,  # nothing of the medium ends up in a core file
}


def serve(handle: Handler) -> int:
    """Read the request, do the work, send the last answer; the exit status."""
    limit_self()
    with socket.socket(fileno=sys.stdin.fileno()) as channel:
        packet = channel.recv(MAX_MESSAGE)
        if not packet:
            return 1  # the daemon is gone
        request = msgspec.json.decode(packet, type=Request)
        try:
            answer, descriptors = handle(request, _reporter(channel))
        except ImageRefusedError as error:
            answer, descriptors = Answer(refused=_shortened(error.problem)), ()
        _send(channel, answer, descriptors)
    return 0


def limit_self() -> None:
    """Die with the daemon, gain nothing by any exec, and use bounded resources."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for kind, limit in _LIMITS.items():
        hard = resource.getrlimit(kind)[1]
        value = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (value, value))


def _reporter(channel: socket.socket) -> Callable[[int, int], None]:
    """Report progress, but not more often than somebody could look."""
    last = 0.0

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= PROGRESS_EVERY:
            last = now
            _send(channel, Answer(progress=Progress(done=done, total=total)))

    return report


def _send(channel: socket.socket, answer: Answer, descriptors: Sequence[int] = ()) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    channel.sendmsg([msgspec.json.encode(answer)], rights if descriptors else [])


def _shortened(problem: Problem) -> Problem:
    return Problem(problem.code, problem.message[:MAX_TEXT], problem.hint[:MAX_TEXT])
