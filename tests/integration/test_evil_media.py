"""Media that lie, fail and fall silent: the bytes are made up while they are read."""

import asyncio
import errno
import os
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from threading import Event

import pytest

from extsloader.adapters.verifier.port import MAX_STUCK, Verifier
from extsloader.image.verity import write_all
from extsloader.model.errors import ImageRefusedError
from extsloader.model.helper import Request
from extsloader.model.manifest import Manifest
from extsloader.model.reasons import Code
from extsloader.model.settings import Timeouts
from extsloader.model.trust import Bounds
from extsloader.verify import store
from extsloader.verify.medium import Medium
from extsloader.verify.pipeline import verify
from extsloader.verify.store import Pace, Progress
from tests.fakes import images
from tests.fakes.fuse import made_up_file

pytestmark = pytest.mark.root


class Stick:
    """A signed image whose bytes turn bad after so many have been read."""

    def __init__(self, folder: Path, good_for: int) -> None:
        self.manifest: Manifest = images.signed(folder / "image")
        self.content = (folder / "image").read_bytes()
        self.good_for = good_for

    def read(self, offset: int, length: int) -> bytes:
        part = self.content[offset : offset + length]
        self.good_for -= length
        return part if self.good_for >= 0 else bytes(byte ^ 0xFF for byte in part)


def request(folder: Path, medium: Path) -> Request:
    if not (folder / "keys").exists():
        images.key_directory(folder / "keys", 1)
    return Request(
        source=images.file_source(medium),
        machine=images.MACHINE,
        keys=str(folder / "keys"),
        store=images.store_in(folder),
        wall=1_800_000_000.0,
        reserve=0,
    )


def ignore(_done: int, _total: int) -> None:
    pass


def attempt(asked: Request) -> bytes | Code:
    """The image that is kept in the end, or why none is."""
    try:
        image, descriptor = verify(asked, ignore)
    except ImageRefusedError as error:
        return error.problem.code
    with os.fdopen(descriptor, "rb") as stored:
        return stored.read(image.manifest.image.size)


def test_h097_checking_a_path_and_using_it_later_is_fooled(tmp_path: Path) -> None:
    """Without the guard: RAUC before CVE-2020-25860 did this."""
    stick = Stick(tmp_path, good_for=0)
    size = stick.manifest.image.size
    stick.good_for = len(stick.content)
    with made_up_file(tmp_path / "medium", len(stick.content), stick.read) as medium:
        checked = sha256(medium.read_bytes()[:size]).hexdigest()
        used = sha256(medium.read_bytes()[:size]).hexdigest()
    assert checked == stick.manifest.image.digest != used


def test_h097_hashing_first_and_copying_then_is_fooled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the guard, in the whole of our own order of trust: evil bytes are kept."""

    def hash_then_copy(
        medium: Medium, target: int, size: int, _pace: Pace, progress: Progress
    ) -> str:
        found = store.hash_all(medium.read_into, size, progress)
        check_content(medium.descriptor, stick.manifest.image)
        stick.good_for = 0
        write_all(target, medium.read(0, size), 0)
        return found

    check_content = store.check_content
    stick = Stick(tmp_path, good_for=0)
    stick.good_for = 1 << 40
    monkeypatch.setattr(store, "copy", hash_then_copy)
    monkeypatch.setattr(store, "check_content", lambda *_: None)
    with made_up_file(tmp_path / "medium", len(stick.content), stick.read) as medium:
        found = attempt(request(tmp_path, medium))
    assert isinstance(found, bytes)
    assert sha256(found).hexdigest() != stick.manifest.image.digest


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0, 1.05, 1.1, 1.5, 2.0, 3.0])
def test_h097_what_is_kept_is_what_was_signed_whenever_the_stick_turns(
    tmp_path: Path, share: float
) -> None:
    stick = Stick(tmp_path, good_for=0)
    stick.good_for = int(share * len(stick.content)) + 4096
    with made_up_file(tmp_path / "medium", len(stick.content), stick.read) as medium:
        found = attempt(request(tmp_path, medium))
    if isinstance(found, Code):
        assert found in {Code.DIGEST, Code.ENVELOPE, Code.LAYOUT, Code.FS_TYPE}
        assert images.names(tmp_path / "store") == []
    else:
        assert share >= 1.0
        assert sha256(found).hexdigest() == stick.manifest.image.digest


@pytest.mark.parametrize("where", [0, 8192, 100_000, -1])
def test_h099_a_bad_sector_is_named(tmp_path: Path, where: int) -> None:
    stick = Stick(tmp_path, good_for=1 << 40)
    last = stick.manifest.image.size - 1
    bad = where if where >= 0 else last

    def read(offset: int, length: int) -> bytes:
        if offset <= bad < offset + length:
            raise OSError(errno.EIO, "bad sector")
        return stick.read(offset, length)

    with (
        made_up_file(tmp_path / "medium", len(stick.content), read) as medium,
        pytest.raises(ImageRefusedError) as caught,
    ):
        verify(request(tmp_path, medium), ignore)
    assert caught.value.problem.code is Code.IO
    assert "at byte" in caught.value.problem.message
    assert images.names(tmp_path / "store") == []


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[tuple[Path, Event]]:
    """A medium whose superblock is readable; other reads are answered once the event is set."""
    stick = Stick(tmp_path, good_for=1 << 40)
    release = Event()

    def read(offset: int, length: int) -> bytes:
        if offset >= 65536:
            release.wait()
        return stick.read(offset, length)

    with made_up_file(tmp_path / "medium", len(stick.content), read, readers=16) as medium:
        yield medium, release
        release.set()


async def test_f15_helpers_that_hang_are_given_up_and_counted(
    tmp_path: Path, silent: tuple[Path, Event]
) -> None:
    medium, release = silent
    asked = request(tmp_path, medium)
    verifier = Verifier(
        keys=asked.keys,
        store=asked.store,
        machine=images.MACHINE,
        timeouts=Timeouts(silence=2.0),
        files=(),
        wall=lambda: asked.wall,
        python=sys.executable,
    )

    async def refusal() -> Code:
        with pytest.raises(ImageRefusedError) as caught:
            await verifier.verify(asked.source, Bounds(), ignore)
        return caught.value.problem.code

    codes = await asyncio.gather(*(refusal() for _ in range(MAX_STUCK)))
    assert set(codes) == {Code.TIMEOUT}
    assert verifier.stuck() == MAX_STUCK
    assert await refusal() is Code.BUSY  # at once: no ninth process
    release.set()
    async with asyncio.timeout(10):
        for helper in verifier.abandoned:
            await helper.ended.wait()
    assert verifier.stuck() == 0
