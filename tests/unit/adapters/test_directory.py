"""Files come and go in real directories, and the adapter reports it."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from extsloader.adapters.directory import FileSources
from extsloader.model.errors import MachineError
from extsloader.model.events import EffectFailed, Event, EventsLost, SourceGone, SourceSeen
from extsloader.model.source import Source, SourceKind

LOST = EventsLost("files")
STORED = "a" * 64 + ".img"


class Place:
    """A watched file and a watched directory, a store, and what is reported about them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.file = root / "persist/ext-imga.img"
        self.images = root / "images"
        self.store = root / "store"
        for path in (self.file.parent, self.images, self.store):
            path.mkdir()
        self.sources = FileSources((str(self.file), str(self.images)), str(self.store))
        self.events = asyncio.Queue[Event]()

    def start(self) -> None:
        self.sources.start(self.events.put_nowait)

    def listed(self) -> dict[str, SourceKind]:
        found = self.sources.list_sources()
        return {source.id.path.removeprefix(f"{self.root}/"): source.kind for source in found}

    async def next(self) -> Event:
        async with asyncio.timeout(5):
            return await self.events.get()

    async def seen(self, path: Path) -> Source:
        event = await self.next()
        assert isinstance(event, SourceSeen)
        assert event.source.id.path == str(path)
        return event.source


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path)
    place.start()
    yield place
    place.sources.close()


async def test_what_lies_there_at_the_start_is_listed(place: Place) -> None:
    place.file.write_text("image")
    for name in ("b.img", "a.img", "notes.txt", "img"):
        (place.images / name).write_text("image")
    for name in (STORED, "a.img", STORED.upper(), f"{STORED}.part"):
        (place.store / name).write_text("image")
    assert place.listed() == {
        f"store/{STORED}": SourceKind.STORED,
        "persist/ext-imga.img": SourceKind.FILE,
        "images/a.img": SourceKind.FILE,
        "images/b.img": SourceKind.FILE,
    }


async def test_only_regular_files_with_content_count(place: Place) -> None:
    place.file.write_text("image")
    (place.images / "link.img").symlink_to(place.file)
    (place.images / "empty.img").touch()
    (place.images / "directory.img").mkdir()
    os.mkfifo(place.images / "fifo.img")
    (place.images / "bi\u202edi.img").write_text("image")
    (place.images / os.fsdecode(b"\xff.img")).write_text("image")
    (place.store / STORED).symlink_to(place.file)
    assert place.listed() == {"persist/ext-imga.img": SourceKind.FILE}


async def test_a_watched_file_that_is_a_link_is_nothing(place: Place) -> None:
    (place.images / "real").write_text("image")
    place.file.symlink_to(place.images / "real")
    assert place.listed() == {}


async def test_a_written_file_is_seen_when_it_is_closed(place: Place) -> None:
    with place.file.open("w") as file:
        file.write("half")
        file.flush()
        (place.images / "other.img").write_text("image")
        await place.seen(place.images / "other.img")
    source = await place.seen(place.file)
    status = place.file.stat()
    assert source.id.generation == f"{status.st_ino}-4-{status.st_ctime_ns}"
    assert (source.kind, source.size) == (SourceKind.FILE, 4)
    assert place.sources.list_sources()[0] == source


async def test_a_rewritten_file_is_another_source(place: Place) -> None:
    place.file.write_text("image")
    before = await place.seen(place.file)
    place.file.write_text("another image")
    after = await place.seen(place.file)
    assert before.id != after.id
    place.file.chmod(0o600)
    await place.seen(place.file)


async def test_moved_in_moved_out_and_deleted(place: Place) -> None:
    outside = place.root / "outside"
    outside.write_text("image")
    image = place.images / "a.img"
    outside.rename(image)
    await place.seen(image)
    image.rename(outside)
    assert await place.next() == SourceGone(str(image))
    outside.rename(image)
    await place.seen(image)
    image.unlink()
    assert await place.next() == SourceGone(str(image))


async def test_a_file_that_becomes_a_link_or_empty_is_gone(place: Place) -> None:
    place.file.write_text("image")
    await place.seen(place.file)
    link = place.root / "link"
    link.symlink_to("/etc/passwd")
    link.rename(place.file)
    assert await place.next() == SourceGone(str(place.file))


async def test_other_files_are_not_reported(place: Place) -> None:
    (place.file.parent / "ext-imgb.img").write_text("image")
    (place.images / "notes.txt").write_text("image")
    (place.images / "new\nline.img").write_text("image")
    (place.store / STORED).write_text("image")
    (place.images / "last.img").write_text("image")
    await place.seen(place.images / "last.img")


async def test_many_changes_of_one_file_are_reported_once(place: Place) -> None:
    for _ in range(100):
        place.file.write_text("image")
    await place.seen(place.file)
    (place.images / "last.img").write_text("image")
    await place.seen(place.images / "last.img")


async def test_a_directory_that_comes_later_is_found(tmp_path: Path) -> None:
    late = tmp_path / "mnt/sub/images"
    sources = FileSources((str(late),), str(tmp_path / "store"))
    events = asyncio.Queue[Event]()
    sources.start(events.put_nowait)
    try:
        assert sources.list_sources() == ()
        async with asyncio.timeout(5):
            for path in (late.parent.parent, late.parent, late):
                path.mkdir()
                assert await events.get() == LOST
                assert sources.list_sources() == ()
            (late / "a.img").write_text("image")
            assert isinstance(await events.get(), SourceSeen)
            (late / "a.img").unlink()
            assert await events.get() == SourceGone(str(late / "a.img"))
            late.rename(tmp_path / "elsewhere")
            assert await events.get() == LOST
            assert sources.list_sources() == ()
    finally:
        sources.close()


async def test_a_directory_that_is_made_again_is_watched_again(place: Place) -> None:
    place.images.rmdir()
    assert await place.next() == LOST
    assert place.listed() == {}
    place.images.mkdir()
    assert await place.next() == LOST
    assert place.listed() == {}
    (place.images / "a.img").write_text("image")
    await place.seen(place.images / "a.img")


async def test_two_paths_that_lead_to_one_directory_are_both_watched(tmp_path: Path) -> None:
    """The kernel has one watch for both, and says no path (inotify(7))."""
    images, other = tmp_path / "images", tmp_path / "other"
    images.mkdir()
    other.symlink_to(images)
    sources = FileSources((str(images), str(other)), str(tmp_path / "store"))
    events = asyncio.Queue[Event]()
    sources.start(events.put_nowait)
    try:
        (images / "a.img").write_text("image")
        async with asyncio.timeout(5):
            seen = [await events.get() for _ in range(2)]
        paths = [event.source.id.path for event in seen if isinstance(event, SourceSeen)]
        assert paths == [f"{images}/a.img", f"{other}/a.img"]
        assert [source.id.path for source in sources.list_sources()] == paths
    finally:
        sources.close()


@pytest.mark.parametrize(
    "odd", ["loop", "n" * 256, "closed/images"], ids=["link to itself", "long", "closed"]
)
async def test_a_path_that_cannot_be_read_is_told_and_the_others_are_watched(odd: str) -> None:
    with somebody_else(), TemporaryDirectory(prefix="extst-") as name:
        root = Path(name)
        (root / "loop").symlink_to(root / "loop")
        (root / "closed/images").mkdir(parents=True)
        (root / "closed").chmod(0)
        (root / "images").mkdir()
        sources = FileSources((f"{root}/{odd}", f"{root}/images"), f"{root}/store")
        events = asyncio.Queue[Event]()
        sources.start(events.put_nowait)
        try:
            (root / "images/a.img").write_text("image")
            async with asyncio.timeout(5):
                failed, seen = [await events.get() for _ in range(2)]
            assert isinstance(failed, EffectFailed)
            assert failed.problem.message.startswith(f"cannot watch {root}/{odd}: ")
            assert isinstance(seen, SourceSeen)
            assert len(sources.list_sources()) == 1
            if odd == "closed/images":
                (root / "closed").chmod(0o700)
                while await events.get() != LOST:  # the directory above is watched
                    pass
        finally:
            sources.close()
            (root / "closed").chmod(0o700)


@contextmanager
def somebody_else() -> Iterator[None]:
    """Root may read everything, except on a network or FUSE file system of somebody else."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def mounted(target: Path) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "extst-directory", target], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", target], check=True)


@pytest.mark.root
async def test_what_is_mounted_over_a_place_later_is_noticed(place: Place) -> None:
    place.file.write_text("underneath")
    await place.seen(place.file)
    with mounted(place.file.parent):
        assert await place.next() == LOST
        assert place.listed() == {}
        place.file.write_text("above")
        assert (await place.seen(place.file)).size == 5
    while await place.next() != LOST:
        pass
    assert place.sources.list_sources()[0].size == 10


@pytest.mark.root
async def test_other_mounts_are_nobodys_business(place: Place) -> None:
    elsewhere = place.root / "elsewhere"
    elsewhere.mkdir()
    with mounted(elsewhere):
        place.file.write_text("image")
        await place.seen(place.file)
    place.file.write_text("image")
    await place.seen(place.file)


async def test_lost_events_are_said(place: Place) -> None:
    here, there = place.images / "here", place.images / "there"
    here.touch()
    for _ in range(1 + queue_length() // 4):
        here.rename(there)
        there.rename(here)
    assert await place.next() == LOST
    place.file.write_text("image")
    await place.seen(place.file)


def queue_length() -> int:
    return int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


def test_a_listing_needs_no_watch(tmp_path: Path) -> None:
    (tmp_path / "a.img").write_text("image")
    sources = FileSources((str(tmp_path), str(tmp_path / "a.img")), str(tmp_path / "none"))
    assert [source.id.path for source in sources.list_sources()] == [str(tmp_path / "a.img")]
    sources.close()


def test_a_place_that_cannot_be_listed_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(MachineError, match=r"E_IO: cannot list .*/store: not a directory"):
        FileSources((), str(tmp_path / "store")).list_sources()


async def test_nothing_is_left_open(tmp_path: Path) -> None:
    before = count_descriptors()
    place = Place(tmp_path)
    place.start()
    assert count_descriptors() > before
    place.sources.close()
    assert count_descriptors() == before


def count_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
