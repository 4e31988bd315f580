"""Only the very medium that discovery saw is opened; devices are tried in the integration tests."""

import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from extsloader.model.errors import ImageRefusedError
from extsloader.model.ids import SourceId
from extsloader.model.reasons import Code
from extsloader.model.source import Source, SourceKind, device_generation, file_generation
from extsloader.verify.identity import check_source, open_source, refusal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.img"
    path.write_text("image")
    return path


@pytest.fixture
def opened(path: Path) -> Iterator[tuple[int, Source]]:
    source = source_of(path)
    descriptor = open_source(source)
    yield descriptor, source
    os.close(descriptor)


def source_of(path: Path) -> Source:
    status = path.lstat()
    generation = file_generation(status.st_ino, status.st_size, status.st_ctime_ns)
    identity = SourceId(str(path), generation)
    return Source(id=identity, kind=SourceKind.FILE, size=status.st_size)


def refused(source: Source) -> Code:
    before = count_descriptors()
    with pytest.raises(ImageRefusedError) as error:
        open_source(source)
    assert count_descriptors() == before
    return error.value.problem.code


def count_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_file_is_opened_for_reading_only(opened: tuple[int, Source]) -> None:
    descriptor, _ = opened
    assert os.pread(descriptor, 10, 0) == b"image"
    assert not os.get_inheritable(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(descriptor, b"x")


def test_another_file_in_its_place_is_refused(path: Path) -> None:
    source = source_of(path)
    other = path.with_name("other")
    other.write_text("image")
    other.rename(path)
    assert refused(source) is Code.GONE


def test_a_file_that_is_gone_is_refused(path: Path) -> None:
    source = source_of(path)
    path.unlink()
    assert refused(source) is Code.GONE
    assert refused(replace(source, id=SourceId("/etc/passwd/x", "1"))) is Code.GONE


def test_a_link_is_refused(path: Path) -> None:
    link = path.with_name("link.img")
    link.symlink_to(path)
    assert refused(replace(source_of(path), id=SourceId(str(link), "1"))) is Code.PATH


def test_a_fifo_is_refused_without_waiting_for_a_writer(path: Path) -> None:
    source = source_of(path)
    path.unlink()
    os.mkfifo(path)
    assert refused(source) is Code.GONE


def test_a_character_device_is_no_block_device() -> None:
    null = Source(id=SourceId("/dev/null", "1"), kind=SourceKind.DEVICE, size=0, devno="1:3")
    assert refused(null) is Code.GONE


def test_a_file_is_no_block_device(path: Path) -> None:
    assert refused(replace(source_of(path), kind=SourceKind.DEVICE)) is Code.GONE


def test_a_change_while_it_is_open_is_noticed(path: Path, opened: tuple[int, Source]) -> None:
    descriptor, source = opened
    check_source(descriptor, source)
    path.write_text("image and more")
    with pytest.raises(ImageRefusedError) as error:
        check_source(descriptor, source)
    problem = error.value.problem
    assert problem.code is Code.GONE
    assert f"expected {source.id.generation} of 5 bytes, got " in problem.message
    assert problem.message.endswith(" of 14 bytes")


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.EIO, Code.IO),
        (errno.ENOMEDIUM, Code.GONE),
        (errno.ENXIO, Code.GONE),
        (errno.EBUSY, Code.BUSY),
        (errno.ELOOP, Code.PATH),
        (None, Code.IO),
    ],
)
def test_what_an_error_of_the_kernel_means(path: Path, number: int | None, code: Code) -> None:
    problem = refusal(source_of(path), OSError(number, "It Failed")).problem
    assert problem.code is code
    assert problem.message == f"cannot read {path}: it failed"
    assert problem.hint


def test_generations_are_told_apart() -> None:
    assert device_generation("7", 0, "8:1") == "7"
    assert device_generation("7", 2, "8:1") == "7.2"
    assert device_generation("", 2, "8:1") == "8:1"
    assert file_generation(1, 2, 3) == "1-2-3"
