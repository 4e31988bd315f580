"""One question, one answer, and the helper is gone; devices are tried in the integration tests."""

import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from extsloader.image.superblock import Read, read_superblock
from extsloader.model.errors import ImageRefusedError
from extsloader.model.helper import MAX_MESSAGE, Answer, Request
from extsloader.model.ids import SourceId
from extsloader.model.machine import Machine
from extsloader.model.reasons import Code
from extsloader.model.source import FsType, Source, SourceKind, Superblock, file_generation
from extsloader.verify import probe
from extsloader.verify.probe import probe_source

IMAGE = Superblock(fs_type=FsType.SQUASHFS, used=4000)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    path = tmp_path / "a.img"
    path.write_bytes(
        struct.pack(
            "<4s4I6H8Q",
            *(b"hsqs", 1, 0, 1 << 17, 0, 1, 17, 0, 1, 4, 0),
            *(0, IMAGE.used, IMAGE.used - 9, (1 << 64) - 1, 96, 97, 98, (1 << 64) - 1),
        )
    )
    status = path.stat()
    generation = file_generation(status.st_ino, status.st_size, status.st_ctime_ns)
    identity = SourceId(str(path), generation)
    return Source(id=identity, kind=SourceKind.FILE, size=status.st_size)


def ask(request: bytes) -> tuple[Answer | None, int]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        argv = [sys.executable, "-m", "extsloader.verify", "probe"]
        environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
        with theirs:
            helper = subprocess.Popen(argv, stdin=theirs.fileno(), env=environment)
        if request:
            ours.send(request)
        ours.shutdown(socket.SHUT_WR)
        packet = ours.recv(MAX_MESSAGE)
        status = helper.wait(10)
    return (msgspec.json.decode(packet, type=Answer) if packet else None), status


def encode(source: Source) -> bytes:
    return msgspec.json.encode(Request(source=source, machine=Machine(arch="amd64")))


def test_a_file_is_probed(source: Source) -> None:
    assert probe_source(source) == IMAGE


def test_a_file_that_changed_is_refused(source: Source) -> None:
    os.truncate(source.id.path, 50)
    with pytest.raises(ImageRefusedError) as refused:
        probe_source(source)
    assert refused.value.problem.code is Code.GONE


def test_a_file_that_changes_while_it_is_read_is_refused(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_and_change(read: Read) -> Superblock:
        found = read_superblock(read)
        os.truncate(source.id.path, 50)
        return found

    monkeypatch.setattr(probe, "read_superblock", read_and_change)
    with pytest.raises(ImageRefusedError) as refused:
        probe_source(source)
    assert refused.value.problem.code is Code.GONE


def test_the_helper_answers_and_ends(source: Source) -> None:
    assert ask(encode(source)) == (Answer(superblock=IMAGE), 0)


def test_the_helper_refuses_in_words(source: Source) -> None:
    Path(source.id.path).unlink()
    answer, status = ask(encode(source))
    assert status == 0
    assert answer is not None
    assert answer.refused is not None
    assert answer.refused.code is Code.GONE
    assert answer.refused.message == f"cannot read {source.id}: no such file or directory"


def test_the_helper_ends_when_nobody_asks() -> None:
    assert ask(b"") == (None, 1)


def test_the_helper_loads_nothing_heavy() -> None:
    script = "import sys, extsloader.verify.probe; print(*sys.modules)"
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(
        [sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True
    )
    heavy = {"asyncio", "cryptography", "pydantic", "securesystemslib", "structlog", "pyudev"}
    assert heavy.isdisjoint(found.stdout.split())
