"""`CgroupPort`: groups with processes in them."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from extsloader.adapters.cgroups import groups
from extsloader.adapters.cgroups.factory import open_cgroups
from extsloader.model.errors import MachineError
from extsloader.model.ids import ServiceName
from extsloader.model.manifest import Resources
from extsloader.model.reasons import Code
from extsloader.model.settings import Limits
from extsloader.model.status import Usage
from extsloader.ports.machine import CgroupPort
from tests.fakes.machine import FakeMachine
from tests.integration.containers import CGROUP, HIERARCHIES

ZETA = ServiceName("zeta")
SMALL = Resources(memory=32 << 20, pids=16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    port: CgroupPort
    occupy: Callable[[], None]  # with processes
    is_dead: Callable[[], bool]  # all of them, as soon as what was ordered has happened


@contextmanager
def fake(machine: FakeMachine) -> Iterator[Subject]:
    def occupy() -> None:
        machine.containers[ZETA] = 1000
        machine.running.add(ZETA)

    yield Subject(
        port=machine.ports().cgroups,
        occupy=occupy,
        is_dead=lambda: not machine.is_alive(ZETA),
    )


@contextmanager
def real(monkeypatch: pytest.MonkeyPatch) -> Iterator[Subject]:
    monkeypatch.setattr(groups, "PATIENCE", 0)
    port = open_cgroups(CGROUP, Limits(memory=1 << 30, pids=512))
    processes: list[subprocess.Popen[bytes]] = []

    def occupy() -> None:
        processes.extend(subprocess.Popen(["sleep", "1000"]) for _ in range(2))
        for file in HIERARCHIES.glob(f"**/{CGROUP}/{ZETA}/cgroup.procs"):
            for process in processes:
                file.write_text(f"{process.pid}")

    yield Subject(
        port=port,
        occupy=occupy,
        is_dead=lambda: [process.wait(10) for process in processes] == [-9, -9],
    )
    for process in processes:
        process.kill()
        process.wait()
    port.remove(ZETA)
    port.close_parent()


@pytest.fixture
def subject(kind: str, machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Subject]:
    with fake(machine) if kind == "fake" else real(monkeypatch) as subject:
        subject.port.open_parent()
        yield subject


def test_creating_twice_is_creating_once(subject: Subject) -> None:
    first = subject.port.create(ZETA, SMALL)
    assert subject.port.create(ZETA, SMALL) == first
    subject.port.remove(ZETA)
    subject.port.close_parent()


def test_without_a_group_nothing_is_known_and_nothing_to_do(subject: Subject) -> None:
    assert subject.port.usage(ZETA) == Usage()
    subject.port.kill(ZETA)
    subject.port.remove(ZETA)
    assert subject.port.usage(ZETA) == Usage()


def test_usage_is_known_as_long_as_there_is_a_group(subject: Subject) -> None:
    subject.port.create(ZETA, SMALL)
    assert subject.port.usage(ZETA).pids == 0
    subject.occupy()
    usage = subject.port.usage(ZETA)
    assert usage.pids
    assert usage.memory is not None
    assert usage.cpu_seconds is not None
    assert usage.oom_kills == 0
    subject.port.kill(ZETA)
    assert subject.is_dead()
    subject.port.remove(ZETA)
    assert subject.port.usage(ZETA) == Usage()


def test_a_kill_ends_every_process(subject: Subject) -> None:
    subject.port.create(ZETA, SMALL)
    subject.occupy()
    subject.port.kill(ZETA)
    assert subject.is_dead()
    subject.port.remove(ZETA)


def test_a_group_with_processes_is_not_removed(subject: Subject) -> None:
    subject.port.create(ZETA, SMALL)
    subject.occupy()
    with pytest.raises(MachineError) as busy:
        subject.port.remove(ZETA)
    assert busy.value.problem.code is Code.BUSY
    subject.port.kill(ZETA)
    assert subject.is_dead()
    subject.port.remove(ZETA)


def test_the_parent_is_not_closed_over_a_group(subject: Subject) -> None:
    subject.port.create(ZETA, SMALL)
    with pytest.raises(MachineError) as busy:
        subject.port.close_parent()
    assert busy.value.problem.code is Code.BUSY
    subject.port.remove(ZETA)
    subject.port.close_parent()
