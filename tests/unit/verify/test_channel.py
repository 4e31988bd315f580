"""A helper's own end: it limits itself first, answers in packets, and explains its crashes."""

import os
import select
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

import extsloader
from extsloader.model.helper import Answer, Progress, Request
from extsloader.model.ids import SourceId
from extsloader.model.reasons import Code
from extsloader.model.source import Source, SourceKind, Superblock

REQUEST = Request(source=Source(id=SourceId("/nowhere", ""), kind=SourceKind.FILE, size=1))
HEAD = """
import os, resource, socket, sys
from extsloader.model.errors import ImageRefusedError
from extsloader.model.helper import Answer
from extsloader.model.reasons import Code
from extsloader.model.source import FsType, Superblock
from extsloader.verify.channel import serve
def refuse(text):
    raise ImageRefusedError(Code.IO, text)
def label(text):
    return Answer(superblock=Superblock(fs_type=FsType.UNKNOWN, label=str(text))), ()
def look_at_store(report):
    socket.socket(fileno=os.dup(0)).shutdown(socket.SHUT_WR)
    try:
        report(1, 2)
    except OSError:
        print("the stored image is damaged", file=sys.stderr)
    return label("a new one")
"""


def converse(handler: str, request: bytes | None = None) -> tuple[list[Answer], int, str]:
    """Run a helper with this handler; its answers, exit code and last words."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        if request is None:
            request = msgspec.json.encode(REQUEST)
        ours.send(request) if request else ours.shutdown(socket.SHUT_WR)
        done = subprocess.run(
            [sys.executable, "-c", f"{HEAD}\nraise SystemExit(serve({handler}))"],
            check=False,
            stdin=theirs.fileno(),
            stderr=subprocess.PIPE,
            env={"PYTHONPATH": str(Path(extsloader.__file__).parents[1])},
            text=True,
        )
        theirs.close()
        packets = iter(lambda: ours.recv(1 << 20), b"")
        answers = [msgspec.json.decode(packet, type=Answer) for packet in packets]
    return answers, done.returncode, done.stderr


def label(answers: Sequence[Answer]) -> str:
    (answer,) = answers
    assert isinstance(answer.superblock, Superblock)
    return answer.superblock.label


def test_the_handler_gets_the_request_and_its_answer_goes_back() -> None:
    answers, code, _ = converse("lambda request, _: label(request.source.id)")
    assert (label(answers), code) == ("/nowhere", 0)


def test_a_refusal_is_an_answer_of_bounded_length() -> None:
    answers, code, last_words = converse("lambda *_: refuse('x' * 1_000_000)")
    (answer,) = answers
    assert answer.refused is not None
    assert answer.refused.code is Code.IO
    assert len(answer.refused.message) == 4096
    assert (code, last_words) == (0, "")


def test_progress_is_reported_but_not_every_time() -> None:
    answers, _, _ = converse("lambda _, report: [report(n, 9) for n in range(9)] and label('')")
    assert answers[0].progress == Progress(done=0, total=9)
    assert len(answers) < 9
    assert answers[-1].superblock is not None


def test_a_crash_is_no_answer_and_leaves_its_traceback_to_the_journal() -> None:
    answers, code, last_words = converse("lambda *_: 1 / 0")
    assert (answers, code) == ([], 1)
    assert last_words.endswith("ZeroDivisionError: division by zero\n")


def test_without_a_request_it_ends() -> None:
    assert converse("lambda *_: label('')", b"")[:2] == ([], 1)


def test_memory_beyond_the_limit_ends_the_helper_not_the_device() -> None:
    answers, code, last_words = converse("lambda *_: label(bytearray(1 << 30))")
    assert (answers, code) == ([], 1)
    assert last_words.endswith("MemoryError\n")


@pytest.mark.parametrize(
    ("kind", "most"), [("NOFILE", 64), ("CORE", 0), ("AS", 1 << 30), ("CPU", 900)]
)
def test_limits_are_set_before_the_handler_runs(kind: str, most: int) -> None:
    answers, _, _ = converse(f"lambda *_: label(resource.getrlimit(resource.RLIMIT_{kind})[1])")
    assert 0 <= int(label(answers)) <= most


def test_nothing_is_gained_by_exec_any_more() -> None:
    answers, _, _ = converse("lambda *_: label(open('/proc/self/status').read())")
    assert "NoNewPrivs:\t1" in label(answers)


PARENT = """
import os, signal, socket, subprocess, sys
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
ours.send(sys.argv[2].encode())
argv = [sys.executable, "-c", sys.argv[1]]
subprocess.Popen(argv, stdin=theirs.fileno(), stdout=subprocess.DEVNULL)
os.write(1, ours.recv(1 << 20))
signal.pause()
"""


def test_a_helper_dies_with_its_daemon() -> None:
    handler = "lambda _, report: [report(os.getpid(), 0), __import__('signal').pause()]"
    request = msgspec.json.encode(REQUEST).decode()
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, f"{HEAD}\nserve({handler})", request],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(Path(extsloader.__file__).parents[1])},
    ) as parent:
        try:
            assert parent.stdout is not None
            packet = os.read(parent.stdout.fileno(), 1 << 16)
            answer = msgspec.json.decode(packet, type=Answer)
            assert answer.progress is not None
            helper = os.pidfd_open(answer.progress.done)
        finally:
            parent.kill()
    ended, _, _ = select.select([helper], [], [], 10)
    os.close(helper)
    assert ended == [helper]


def test_an_agent_that_is_gone_is_told_nothing() -> None:
    """Our end is shut down while the helper works, as when the agent is killed."""
    shut = "socket.socket(fileno=os.dup(0)).shutdown(socket.SHUT_WR)"
    answers, code, words = converse(f"lambda *_: ({shut}, label(1))[1]")
    assert (answers, code, words) == ([], 1, "")


def test_an_agent_that_is_gone_is_no_error_of_the_disk() -> None:
    """Or the store would replace a good image that is mounted, and the next agent not adopt it."""
    answers, code, words = converse("lambda _, report: look_at_store(report)")
    assert (answers, code, words) == ([], 1, "")
