"""The process that checks the settings stays, forks helpers, and does not stay for ever."""

import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from extsloader.helper import stay
from extsloader.model.helper import MAX_MESSAGE, Answer, Request
from extsloader.model.ids import SourceId
from extsloader.model.reasons import Code
from extsloader.model.source import Source, SourceKind

NOWHERE = Source(id=SourceId("/dev/extst-nowhere", "1"), kind=SourceKind.FILE, size=4096)


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def fork(channel: socket.socket, job: str) -> tuple[int, socket.socket]:
    """The pidfd of a helper, and our end of its standard input."""
    ours, theirs = pair()
    with theirs:
        socket.send_fds(channel, [job.encode()], [theirs.fileno()])
    _, descriptors, _, _ = socket.recv_fds(ours, 16, 1)
    return descriptors[0], ours


def has_word(channel: socket.socket) -> bool:
    return bool(select.select([channel], [], [], 10)[0])


def has_ended(pidfd: int, seconds: float) -> bool:
    return bool(select.select([pidfd], [], [], seconds)[0])


@contextmanager
def settled() -> Iterator[socket.socket]:
    """The process after its answer; clean ends are its own."""
    ours, theirs = pair()
    argv = [sys.executable, "-m", "extsloader.helper", "/"]
    with subprocess.Popen(argv, stdin=theirs.fileno(), stdout=subprocess.DEVNULL) as process:
        with ours:
            theirs.close()
            assert b'"limits"' in ours.recv(MAX_MESSAGE)
            yield ours
        assert process.wait(10) == 0


def test_it_forks_a_helper_for_each_medium_once_the_settings_are_good() -> None:
    request = msgspec.json.encode(Request(source=NOWHERE))
    with settled() as channel:
        for job in ("probe", "verify", "probe"):
            pidfd, conversation = fork(channel, job)
            with conversation:
                conversation.send(request)
                answer = msgspec.json.decode(conversation.recv(MAX_MESSAGE), type=Answer)
                assert answer.refused is not None
                assert answer.refused.code is Code.GONE
                assert has_ended(pidfd, 10)
            os.close(pidfd)


def test_a_helper_ends_when_the_daemon_does_before_its_request() -> None:
    with settled() as channel:
        pidfd, conversation = fork(channel, "verify")
        conversation.close()
        assert has_ended(pidfd, 10)
    os.close(pidfd)


@pytest.mark.parametrize("heard", [False, True])
def test_a_helper_that_is_called_off_ends_without_a_word(*, heard: bool) -> None:
    """Before it has said what it can be killed with, or when nobody has read that yet."""
    ours, theirs = pair()
    argv = [sys.executable, "-m", "extsloader.helper", "/"]
    with subprocess.Popen(argv, stdin=theirs.fileno(), stderr=subprocess.PIPE) as process, ours:
        theirs.close()
        ours.recv(MAX_MESSAGE)
        conversation, its = pair()
        with its, conversation:
            conversation.send(msgspec.json.encode(Request(source=NOWHERE)))
            if not heard:
                conversation.close()
            socket.send_fds(ours, [b"probe"], [its.fileno()])
            assert not heard or has_word(conversation)
        ours.close()
        assert process.stderr
        assert process.stderr.read() == b""  # to its end, which is also that of the fork


def test_problems_end_it(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("a = 1\nb = 2")
    ours, theirs = pair()
    argv = [sys.executable, "-m", "extsloader.helper", "/", str(config)]
    with ours, subprocess.Popen(argv, stdin=theirs.fileno()) as process:
        theirs.close()
        assert len(msgspec.json.decode(ours.recv(MAX_MESSAGE))) == 2
    assert process.returncode == 1


def test_it_does_not_wait_for_ever() -> None:
    ours, theirs = pair()
    with ours, theirs:
        assert stay(theirs, patience=0) == 0
