"""One descriptor, honest errors: gone is told from broken."""

import errno
import os
from pathlib import Path

import pytest

from extsloader.model.errors import ImageRefusedError
from extsloader.model.reasons import Code
from extsloader.verify.medium import open_medium
from tests.fakes.images import file_source, names


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "medium"
    path.write_bytes(bytes(range(256)) * 16)
    return path


def test_reads_are_whole_and_end_with_the_medium(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, views, at: whole(fd, [views[0][:100]], at))
    with open_medium(file_source(path)) as medium:
        assert medium.read(10, 1000) == path.read_bytes()[10:1010]
        assert medium.read(4000, 1000) == path.read_bytes()[4000:]
        assert medium.read(1 << 40, 10) == b""


def failing(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "preadv", fail)


def test_a_read_error_says_where(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_medium(file_source(path)) as medium:
        failing(monkeypatch, errno.EIO)
        with pytest.raises(ImageRefusedError, match="error at byte 512") as caught:
            medium.read(512, 1)
    assert caught.value.problem.code is Code.IO


def test_a_read_error_of_a_medium_that_was_changed_means_gone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_medium(file_source(path)) as medium:
        os.truncate(path, 100)
        failing(monkeypatch, errno.EIO)
        with pytest.raises(ImageRefusedError) as caught:
            medium.read(512, 1)
    assert caught.value.problem.code is Code.GONE


def test_a_change_while_it_was_open_is_noticed(path: Path) -> None:
    with open_medium(file_source(path)) as medium:
        medium.check()
        path.write_bytes(b"other")
        with pytest.raises(ImageRefusedError) as caught:
            medium.check()
    assert caught.value.problem.code is Code.GONE


def test_the_descriptor_is_closed_in_any_case(path: Path) -> None:
    before = names("/proc/self/fd")
    with pytest.raises(RuntimeError), open_medium(file_source(path)):
        raise RuntimeError
    assert names("/proc/self/fd") == before
