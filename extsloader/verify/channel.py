"""A helper's end of the conversation with the daemon.

The socket is standard input, so a helper needs no arguments and no environment. An exception that
is no refusal ends the process with a traceback for the journal; the daemon reports E_HELPER.
"""

import array
import socket
import sys
import time
from collections.abc import Callable, Sequence

import msgspec

from extsloader.model.errors import ImageRefusedError
from extsloader.model.helper import MAX_MESSAGE, Answer, Progress, Request
from extsloader.model.reasons import Problem
from extsloader.verify.confinement import confine

Handler = Callable[[Request, Callable[[int, int], None]], tuple[Answer, Sequence[int]]]
"""Does the work; returns the last answer and the descriptors that go with it."""


class GoneError(Exception):
    """The daemon has died or wants no more of this.

    No OSError, which the store takes for one of its disk: a good stored image would be thought
    damaged, and replaced under the feet of what runs from it.
    """


PROGRESS_EVERY = 0.1  # seconds
MAX_TEXT = 4096  # characters of a problem's sentence


def serve(handle: Handler) -> int:
    """Read the request, do the work, send the last answer; the exit status."""
    with socket.socket(fileno=sys.stdin.fileno()) as channel:
        try:
            request = msgspec.json.decode(_receive(channel), type=Request)
            confine(request.store)
            _answer(channel, request, handle)
        except GoneError:
            return 1
    return 0


def _answer(channel: socket.socket, request: Request, handle: Handler) -> None:
    try:
        answer, descriptors = handle(request, _reporter(channel))
    except ImageRefusedError as error:
        answer, descriptors = Answer(refused=_shortened(error.problem)), ()
    _send(channel, answer, descriptors)


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


def _receive(channel: socket.socket) -> bytes:
    try:
        packet = channel.recv(MAX_MESSAGE)
    except ConnectionError as error:  # it had not read all that a fork has said
        raise GoneError from error
    if not packet:
        raise GoneError
    return packet


def _send(channel: socket.socket, answer: Answer, descriptors: Sequence[int] = ()) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    try:
        channel.sendmsg([msgspec.json.encode(answer)], rights if descriptors else [])
    except ConnectionError as error:
        raise GoneError from error


def _shortened(problem: Problem) -> Problem:
    return Problem(problem.code, problem.message[:MAX_TEXT], problem.hint[:MAX_TEXT])
