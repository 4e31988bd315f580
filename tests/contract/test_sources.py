"""`SourcePort`: media come and go."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pyudev

from extsloader.adapters import udev
from extsloader.adapters.directory import FileSources
from extsloader.adapters.udev import UdevSources
from extsloader.model.events import Event, EventsLost, SourceGone, SourceSeen
from extsloader.model.source import Source
from extsloader.ports.machine import SourcePort
from tests.fakes import builders, images
from tests.fakes.machine import FakeMachine, Medium
from tests.fakes.real_devices import LoopDevice


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    port: SourcePort
    path: str
    plug: Callable[[], None]
    pull: Callable[[], None]
    swap: Callable[[], None]  # for another medium
    lose_events: Callable[[], None]
    inbox: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)

    async def until(self, wanted: Callable[[Event], bool]) -> Event:
        async with asyncio.timeout(10):
            while not wanted(event := await self.inbox.get()):
                pass
        return event

    async def seen(self, but: Source | None = None) -> Source:
        """The next sight of the medium, or of another one than `but`."""
        before = but and but.id
        event = await self.until(
            lambda e: (
                isinstance(e, SourceSeen)
                and e.source.id.path == self.path
                and e.source.id != before
            )
        )
        assert isinstance(event, SourceSeen)
        return event.source

    def listed(self) -> list[Source]:
        return [source for source in self.port.list_sources() if source.id.path == self.path]


@contextmanager
def fake(
    machine: FakeMachine, _tmp_path: Path, _monkeypatch: pytest.MonkeyPatch
) -> Iterator[Subject]:
    first, second = (
        Medium(
            source=builders.source(generation=generation),
            superblock=builders.squashfs(),
            verdict=builders.stored(),
        )
        for generation in "12"
    )
    yield Subject(
        port=machine.ports().sources["udev"],
        path="/dev/sdb",
        plug=lambda: machine.plug(first),
        pull=lambda: machine.pull("/dev/sdb"),
        swap=lambda: machine.plug(second),
        lose_events=machine.lose_events,
    )


@contextmanager
def files(
    _machine: FakeMachine, tmp_path: Path, _monkeypatch: pytest.MonkeyPatch
) -> Iterator[Subject]:
    watched, new = tmp_path / "watched", tmp_path / "new"
    watched.mkdir()

    def write() -> None:
        new.write_bytes(os.urandom(8))
        new.rename(watched / "a.img")

    def replace_directory() -> None:
        watched.rename(tmp_path / "old")
        watched.mkdir()

    yield Subject(
        port=FileSources((str(watched),), str(tmp_path / "store")),
        path=str(watched / "a.img"),
        plug=write,
        pull=(watched / "a.img").unlink,
        swap=write,
        lose_events=replace_directory,
    )


@contextmanager
def devices(
    _machine: FakeMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Subject]:
    open_monitor, controls = udev.open_monitor, list[socket.socket]()

    def remember() -> tuple[pyudev.Monitor, socket.socket]:
        monitor, control = open_monitor()
        controls.append(control)
        return monitor, control

    monkeypatch.setattr(udev, "open_monitor", remember)
    for name in "ab":
        (tmp_path / name).write_bytes(bytes(1 << 20))
    device = LoopDevice()

    def overrun() -> None:
        controls[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        with Path(f"/sys/block/loop{device.number}/uevent").open("wb", 0) as file:
            file.writelines([b"change"] * 500)

    try:
        yield Subject(
            port=UdevSources(),
            path=device.node,
            plug=lambda: device.plug_in(tmp_path / "a", "--read-only"),
            pull=device.pull_out,
            swap=lambda: device.swap(tmp_path / "b"),
            lose_events=overrun,
        )
    finally:
        device.remove()


@pytest.fixture(params=[fake, files, pytest.param(devices, marks=pytest.mark.root)])
async def subject(
    request: pytest.FixtureRequest,
    machine: FakeMachine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Subject]:
    with request.param(machine, tmp_path, monkeypatch) as subject:
        yield subject
        subject.port.close()


async def test_what_is_plugged_in_is_seen_as_it_is_listed(subject: Subject) -> None:
    subject.port.start(subject.inbox.put_nowait)
    assert subject.listed() == []
    subject.plug()
    assert subject.listed() == [await subject.seen()]


async def test_what_is_pulled_out_is_gone_and_listed_no_more(subject: Subject) -> None:
    subject.port.start(subject.inbox.put_nowait)
    subject.plug()
    await subject.seen()
    subject.pull()
    await subject.until(lambda event: event == SourceGone(subject.path))
    assert subject.listed() == []


async def test_what_was_there_before_the_start_is_listed(subject: Subject) -> None:
    subject.plug()
    subject.port.start(subject.inbox.put_nowait)
    assert len(subject.listed()) == 1


async def test_another_medium_in_the_same_place_is_another_source(subject: Subject) -> None:
    subject.port.start(subject.inbox.put_nowait)
    subject.plug()
    first = await subject.seen()
    subject.swap()
    second = await subject.seen(but=first)
    assert second.id.generation != first.id.generation
    assert subject.listed() == [second]


async def test_lost_events_are_told_and_later_ones_still_come(subject: Subject) -> None:
    subject.port.start(subject.inbox.put_nowait)
    subject.port.list_sources()
    subject.lose_events()
    await subject.until(lambda event: event == EventsLost(subject.port.provider))
    assert subject.listed() == []
    subject.plug()
    await subject.seen()


async def test_after_the_close_nothing_is_reported_and_no_descriptor_open(
    subject: Subject,
) -> None:
    before = images.names("/proc/self/fd")
    subject.port.start(subject.inbox.put_nowait)
    subject.port.close()
    assert images.names("/proc/self/fd") == before
    subject.plug()
    for _ in range(3):
        await asyncio.sleep(0)
    assert subject.inbox.empty()
