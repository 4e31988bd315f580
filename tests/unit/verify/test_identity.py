"""Only the very medium that discovery saw is opened; devices are tried in the integration tests."""

import errno
import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from extsloader.model.errors import ImageRefusedError
from extsloader.model.ids import SourceId
from extsloader.model.reasons import Code
from extsloader.model.source import Source, SourceKind, device_generation, file_generation
from extsloader.verify import identity
from extsloader.verify.identity import check_source, open_disk, open_source, refusal


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
    return Source(id=SourceId(str(path), generation), kind=SourceKind.FILE, size=status.st_size)


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


def pretend_block_device(path: Path, monkeypatch: pytest.MonkeyPatch, diskseq: int) -> None:
    """The file is 8:17 of 4 KiB; a negative `diskseq` is the kernel's error for the question."""
    file, honest = path.stat(), os.fstat
    device = SimpleNamespace(st_mode=stat.S_IFBLK, st_rdev=os.makedev(8, 17))

    def fstat(descriptor: int) -> object:
        found = honest(descriptor)
        return device if found.st_ino == file.st_ino else found

    def ioctl(_descriptor: int, request: int, _buffer: bytes) -> bytes:
        assert request in (identity.BLKGETDISKSEQ, identity.BLKGETSIZE64)
        if request == identity.BLKGETDISKSEQ and diskseq < 0:
            raise OSError(-diskseq, os.strerror(-diskseq))
        return struct.pack("=Q", diskseq if request == identity.BLKGETDISKSEQ else 4096)

    monkeypatch.setattr(os, "fstat", fstat)
    monkeypatch.setattr("fcntl.ioctl", ioctl)


def partition_of(path: Path, generation: str) -> Source:
    return Source(
        id=SourceId(str(path), generation),
        kind=SourceKind.DEVICE,
        size=4096,
        devno="8:17",
        disk=str(path),
        partition=1,
    )


def test_a_partition_and_its_disk_have_one_number(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_block_device(path, monkeypatch, diskseq=7)
    seen = partition_of(path, "7.1")
    for opening in (open_source, open_disk):
        os.close(opening(seen))
        with pytest.raises(ImageRefusedError) as caught:
            opening(partition_of(path, "6.1"))
        assert caught.value.problem.code is Code.GONE
    with pytest.raises(ImageRefusedError, match=r"got 7\.1 of 4096 bytes at 8:17"):
        open_source(partition_of(path, "6.1"))
    with pytest.raises(ImageRefusedError, match=r"got 7$"):
        open_disk(partition_of(path, "6.1"))


@pytest.mark.parametrize("answer", [errno.ENOTTY, errno.EINVAL])
def test_an_old_kernel_has_no_number_but_a_place(
    path: Path, monkeypatch: pytest.MonkeyPatch, answer: int
) -> None:
    pretend_block_device(path, monkeypatch, diskseq=-answer)
    os.close(open_source(partition_of(path, "8:17")))
    os.close(open_disk(partition_of(path, "8:17")))


def test_a_device_that_does_not_answer_is_not_taken_for_an_old_kernel(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_block_device(path, monkeypatch, diskseq=-errno.EIO)
    assert refused(partition_of(path, "8:17")) is Code.IO


def test_a_disk_that_became_a_file_is_gone(path: Path) -> None:
    with pytest.raises(ImageRefusedError, match="got no disk") as caught:
        open_disk(partition_of(path, "7.1"))
    assert caught.value.problem.code is Code.GONE


def test_a_fifo_is_no_file_even_if_it_was_there_before(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert refused(source_of(fifo)) is Code.GONE


def test_what_cannot_be_asked_is_an_error(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.close(descriptor)
    with pytest.raises(ImageRefusedError, match="bad file descriptor") as caught:
        check_source(descriptor, source_of(path))
    assert caught.value.problem.code is Code.IO
