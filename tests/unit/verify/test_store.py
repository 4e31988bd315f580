"""Copying while hashing: what was hashed is what is kept, and nothing half done has a name."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import cycle
from pathlib import Path

import pytest

from extsloader.image.superblock import reader
from extsloader.image.trailer import append_trailer, encode_trailer, read_trailer
from extsloader.model.errors import ImageRefusedError
from extsloader.model.manifest import ImageSpec
from extsloader.model.reasons import Code
from extsloader.verify import store as stores
from extsloader.verify.medium import Medium, open_medium
from extsloader.verify.store import Pace, Store, check_content, copy, open_store
from tests.fakes import images
from tests.fakes.images import names

ENVELOPE = b'{"signed":true}'


def ignore(_done: int, _total: int) -> None:
    pass


@dataclass(frozen=True)
class Given:
    """An open image and an open store."""

    path: Path
    image: ImageSpec
    medium: Medium
    store: Store

    def keep(self, envelope: bytes = ENVELOPE) -> int:
        return self.store.keep(self.medium, self.image, envelope, Pace(0), ignore)

    @property
    def stored(self) -> Path:
        return Path(self.store.path, f"{self.image.digest}.img")


@pytest.fixture
def given(tmp_path: Path) -> Iterator[Given]:
    path = tmp_path / "image"
    image = images.unsigned(path)
    with (
        open_medium(images.file_source(path)) as medium,
        open_store(images.store_in(tmp_path)) as store,
    ):
        yield Given(path, image, medium, store)


def refusal(given: Given) -> Code:
    with pytest.raises(ImageRefusedError) as caught:
        given.keep()
    assert not given.stored.exists()
    assert names(given.store.path) == []
    return caught.value.problem.code


def test_a_stored_file_is_a_complete_image(given: Given) -> None:
    descriptor = given.keep()
    content = given.path.read_bytes()
    assert given.stored.read_bytes() == content + encode_trailer(given.image.size, ENVELOPE)
    assert given.stored.stat().st_mode & 0o777 == 0o400
    assert Path(given.store.path).stat().st_mode & 0o777 == 0o700
    assert os.fstat(descriptor).st_ino == given.stored.stat().st_ino
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(descriptor, b"x")
    found = read_trailer(reader(descriptor), given.image.size)
    assert found is not None
    assert found.envelope == ENVELOPE
    os.close(descriptor)


def test_only_the_signed_bytes_are_copied(given: Given, tmp_path: Path) -> None:
    with (tmp_path / "image").open("ab") as file:
        file.write(b"tail" * 5000)
    with open_medium(images.file_source(given.path)) as larger:
        copied = os.open(tmp_path, os.O_RDWR | os.O_TMPFILE)
        digest = copy(larger, copied, given.image.size, Pace(0), ignore)
        assert os.fstat(copied).st_size == given.image.size
        assert digest == given.image.digest
        os.close(copied)


def test_changed_bytes_are_refused_and_leave_nothing(given: Given) -> None:
    with given.path.open("r+b") as file:
        file.seek(1000)
        file.write(b"changed")
    assert refusal(given) is Code.DIGEST


def test_a_medium_that_ends_early_is_refused_and_leaves_nothing(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, v, at: whole(fd, v, at) if at < 100_000 else 0)
    monkeypatch.setattr(stores, "CHUNK", 49_152)
    assert refusal(given) is Code.SIZE


def test_a_medium_that_was_swapped_after_the_copy_is_refused(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "check_content", lambda *_: given.path.touch())
    assert refusal(given) is Code.GONE


def test_odd_reads_and_writes_are_put_together(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = cycle((1, 4095, 70_000, 4096, 13))
    read, write = os.preadv, os.pwrite
    monkeypatch.setattr(os, "preadv", lambda fd, v, at: read(fd, [v[0][: next(sizes)]], at))
    monkeypatch.setattr(os, "pwrite", lambda fd, v, at: write(fd, v[: next(sizes)], at))
    os.close(given.keep())
    content = given.stored.read_bytes()[: given.image.size]
    assert sha256(content).hexdigest() == given.image.digest


def test_progress_ends_with_all_of_it(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "CHUNK", 98_304)
    seen: list[tuple[int, int]] = []
    keep = given.store.keep
    os.close(keep(given.medium, given.image, ENVELOPE, Pace(0), lambda *p: seen.append(p)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (given.image.size, given.image.size)
    assert len(seen) == -(-given.image.size // 98_304)


def test_an_image_that_is_there_already_is_not_copied(given: Given) -> None:
    assert given.store.find(given.image, ENVELOPE, ignore) is None
    os.close(given.keep())
    found = given.store.find(given.image, ENVELOPE, ignore)
    assert found is not None
    os.close(found)


def test_a_rotten_or_otherwise_signed_file_is_replaced_in_one_step(given: Given) -> None:
    os.close(given.keep())
    held = given.stored.open("rb")
    given.stored.chmod(0o600)
    with given.stored.open("r+b") as file:
        file.write(b"rot")
    assert given.store.find(given.image, ENVELOPE, ignore) is None
    assert given.store.find(given.image, b"other", ignore) is None
    os.close(given.keep(b"other"))
    found = given.store.find(given.image, b"other", ignore)
    assert found is not None
    os.close(found)
    assert held.read(3) == b"rot", "who has the old file open keeps it"
    held.close()
    assert names(given.store.path) == [given.stored.name]


@pytest.mark.parametrize("content", [b"", b"junk", "link", "fifo"])
def test_foreign_files_in_the_store_are_not_taken_for_images(
    given: Given, content: bytes | str
) -> None:
    if content == "link":
        given.stored.symlink_to(given.path)
    elif content == "fifo":
        os.mkfifo(given.stored)
    elif isinstance(content, bytes):
        given.stored.write_bytes(content)
    assert given.store.find(given.image, ENVELOPE, ignore) is None
    os.close(given.keep())
    assert given.stored.is_file()
    assert not given.stored.is_symlink()


def test_a_full_disk_is_refused_before_the_copy(given: Given) -> None:
    given.store.check_room(given.image, 0)
    with pytest.raises(ImageRefusedError, match="bytes needed, 0 free") as caught:
        given.store.check_room(given.image, 1 << 60)
    assert caught.value.problem.code is Code.RESOURCE


def test_content_that_does_not_fit_together_is_the_signers_fault(tmp_path: Path) -> None:
    path = tmp_path / "image"
    image = images.unsigned(path)
    append_trailer(str(path), ENVELOPE)
    larger = ImageSpec(
        size=image.size + 4096, digest=image.digest, format="squashfs", verity=image.verity
    )
    with path.open("rb") as file, pytest.raises(ImageRefusedError) as caught:
        check_content(file.fileno(), larger)
    assert caught.value.problem.code is Code.SIZE


class Clock:
    """Each read takes a fixed time."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def test_a_slow_medium_is_given_up_after_the_first_slow_window() -> None:
    pace = Pace(1 << 20, Clock(1.0))
    for _ in range(9):
        pace.timed(lambda: 1 << 19)
    with pytest.raises(ImageRefusedError, match="1048576 bytes a second expected, 524288 got") as e:
        pace.timed(lambda: 1 << 19)
    assert e.value.problem.code is Code.TIMEOUT


def test_a_medium_that_is_just_fast_enough_may_go_on() -> None:
    pace = Pace(1 << 20, Clock(1.0))
    for _ in range(100):
        assert pace.timed(lambda: 1 << 20) == 1 << 20


def test_a_window_that_was_slow_is_not_excused_by_a_fast_one_before() -> None:
    pace = Pace(1000, Clock(1.0))
    for _ in range(10):
        pace.timed(lambda: 1 << 30)
    for _ in range(9):
        pace.timed(lambda: 1)
    with pytest.raises(ImageRefusedError):
        pace.timed(lambda: 1)
