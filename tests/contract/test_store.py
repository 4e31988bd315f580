"""`ImageStorePort`: housekeeping of verified images."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from extsloader.adapters.store import Store
from extsloader.model.ids import Digest
from extsloader.ports.machine import ImageStorePort
from tests.fakes.machine import FakeMachine

OLD, NEW = Digest("a" * 64), Digest("b" * 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    port: ImageStorePort
    put: Callable[[Digest], object]
    stored: Callable[[], set[str]]


def fake(machine: FakeMachine) -> Subject:
    return Subject(
        port=machine.ports().store, put=machine.stored.add, stored=lambda: set(machine.stored)
    )


def real(directory: Path) -> Subject:
    return Subject(
        port=Store(str(directory)),
        put=lambda digest: (directory / f"{digest}.img").write_bytes(b"image"),
        stored=lambda: {path.stem for path in directory.iterdir()},
    )


@pytest.fixture(params=["fake", "real"])
def subject(request: pytest.FixtureRequest, machine: FakeMachine, tmp_path: Path) -> Subject:
    return fake(machine) if request.param == "fake" else real(tmp_path)


def test_dropping_twice_is_dropping_once_and_leaves_the_others(subject: Subject) -> None:
    for digest in (OLD, NEW):
        subject.put(digest)
    for _ in range(2):
        subject.port.drop(OLD)
        assert subject.stored() == {NEW}
