"""The process that checks the settings stays for a verification, and not for ever."""

import socket
import subprocess
import sys
from pathlib import Path

import msgspec

from extsloader.helper import stay
from extsloader.model.helper import MAX_MESSAGE, Answer, Request
from extsloader.model.ids import SourceId
from extsloader.model.reasons import Code
from extsloader.model.source import Source, SourceKind

NOWHERE = Source(id=SourceId("/dev/extst-nowhere", "1"), kind=SourceKind.FILE, size=4096)


def test_it_verifies_once_the_settings_are_good() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    argv = [sys.executable, "-m", "extsloader.helper"]
    with ours, subprocess.Popen(argv, stdin=theirs.fileno(), stdout=subprocess.DEVNULL) as process:
        theirs.close()
        assert b'"limits"' in ours.recv(MAX_MESSAGE)
        ours.send(msgspec.json.encode(Request(source=NOWHERE)))
        answer = msgspec.json.decode(ours.recv(MAX_MESSAGE), type=Answer)
    assert answer.refused is not None
    assert answer.refused.code is Code.GONE
    assert process.returncode == 0


def test_problems_end_it(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("a = 1\nb = 2")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    argv = [sys.executable, "-m", "extsloader.helper", f"--config={config}"]
    with ours, subprocess.Popen(argv, stdin=theirs.fileno()) as process:
        theirs.close()
        assert len(msgspec.json.decode(ours.recv(MAX_MESSAGE))) == 2
    assert process.returncode == 1


def test_it_does_not_wait_for_ever() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        assert stay(theirs, patience=0) == 0
