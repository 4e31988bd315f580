"""`VerifierPort`: helpers that look at media, and are gone afterwards."""

import asyncio
import fcntl
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from extsloader.adapters.verifier import Verifier
from extsloader.model.errors import ImageRefusedError
from extsloader.model.ids import Digest
from extsloader.model.reasons import Code, Problem
from extsloader.model.settings import Timeouts
from extsloader.model.source import Filters, FsType, Source
from extsloader.model.trust import Bounds
from extsloader.ports.machine import VerifierPort
from tests.fakes import builders, images
from tests.fakes.machine import FakeMachine, Medium


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    port: VerifierPort
    good: Source
    digest: Digest  # of the good one
    slow: Source
    untrusted: Source
    gone: Source
    helpers: Callable[[], int]  # at work now


def fake(machine: FakeMachine) -> Subject:
    def medium(path: str, verdict: Problem | None = None) -> Medium:
        found = Medium(
            source=builders.source(path),
            superblock=builders.squashfs(),
            verdict=verdict or builders.stored(),
        )
        machine.plug(found)
        return found

    slow, gone = medium("/dev/slow"), medium("/dev/gone")
    slow.held.clear()
    machine.pull("/dev/gone")
    untrusted = medium("/dev/untrusted", Problem(Code.SIGNATURE, "no accepted key signed it"))
    return Subject(
        port=machine.ports().verifier,
        good=medium("/dev/good").source,
        digest=builders.stored().digest,
        slow=slow.source,
        untrusted=untrusted.source,
        gone=gone.source,
        helpers=lambda: machine.helpers,
    )


def real(directory: Path) -> Subject:
    manifest = images.signed(directory / "good")
    images.signed(directory / "untrusted", 2)
    (directory / "gone").write_bytes(b"image")
    good, untrusted, gone = (
        images.file_source(directory / name) for name in ("good", "untrusted", "gone")
    )
    (directory / "gone").unlink()
    port = Verifier(
        keys=images.key_directory(directory / "keys", 1),
        store=images.store_in(directory),
        machine=images.MACHINE,
        timeouts=Timeouts(),
        files=Filters().files,
        wall=lambda: 1_800_000_000.0,
        python=sys.executable,
    )
    return Subject(
        port=port,
        good=good,
        digest=manifest.image.digest,
        slow=good,  # called off at its first progress, it has not ended
        untrusted=untrusted,
        gone=gone,
        helpers=count_children,
    )


def count_children() -> int:
    threads = Path("/proc/self/task").iterdir()
    return sum(len((thread / "children").read_text().split()) for thread in threads)


def ignore(_done: int, _total: int) -> None:
    pass


@pytest.fixture
def subject(kind: str, machine: FakeMachine, tmp_path: Path) -> Subject:
    return fake(machine) if kind == "fake" else real(tmp_path)


async def test_a_probe_tells_the_file_system(subject: Subject) -> None:
    assert (await subject.port.probe(subject.good)).fs_type is FsType.SQUASHFS


async def test_a_good_image_is_verified_and_its_progress_told(subject: Subject) -> None:
    told: list[tuple[int, int]] = []
    image, descriptor = await subject.port.verify(
        subject.good, Bounds(), lambda *now: told.append(now)
    )
    os.close(descriptor)
    assert image.digest == subject.digest
    assert told
    assert all(0 <= done <= total <= subject.good.size for done, total in told)


async def test_each_caller_gets_a_descriptor_of_its_own_to_read_only(subject: Subject) -> None:
    descriptors = [(await subject.port.verify(subject.good, Bounds(), ignore))[1] for _ in range(2)]
    for descriptor in descriptors:
        os.pread(descriptor, 4, 0)
        assert fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        os.close(descriptor)  # fails if it is the other one's


async def test_a_refusal_carries_a_code(subject: Subject) -> None:
    with pytest.raises(ImageRefusedError) as refused:
        await subject.port.verify(subject.untrusted, Bounds(), ignore)
    assert refused.value.problem.code is Code.SIGNATURE


async def test_a_medium_that_is_not_there_is_gone(subject: Subject) -> None:
    with pytest.raises(ImageRefusedError) as not_probed:
        await subject.port.probe(subject.gone)
    with pytest.raises(ImageRefusedError) as not_verified:
        await subject.port.verify(subject.gone, Bounds(), ignore)
    assert not_probed.value.problem.code is Code.GONE
    assert not_verified.value.problem.code is Code.GONE


async def test_a_call_that_is_cancelled_ends_its_helper(subject: Subject) -> None:
    before = subject.helpers()
    working: list[int] = []

    def call_off(_done: int, _total: int) -> None:
        working.append(subject.helpers())
        task.cancel()

    task = asyncio.get_running_loop().create_task(
        subject.port.verify(subject.slow, Bounds(), call_off)
    )
    with pytest.raises(asyncio.CancelledError):
        await task
    assert working[0] == before + 1
    assert subject.helpers() == before
