"""Images as files: in watched places, where they come and go, and in our own store.

A watched path is a file or a directory (each `*.img` in it), and it need not exist yet: the
nearest directory above it is watched until it appears. One that cannot be read is told, and the
others are watched. Mounts are no inotify events, so a file
system that is mounted over such a place later is noticed by the mount table. The store is only
listed: what comes into it later comes from us.
"""

import asyncio
import ctypes
import errno
import os
import re
import select
import stat
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from extsloader.model.errors import MachineError
from extsloader.model.events import EffectFailed, EventsLost, SourceGone, SourceSeen
from extsloader.model.ids import SourceId
from extsloader.model.reasons import Code
from extsloader.model.source import Source, SourceKind, file_generation
from extsloader.ports.machine import Emit

# include/uapi/linux/inotify.h
IN_ATTRIB, IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO = 0x4, 0x8, 0x40, 0x80
IN_CREATE, IN_DELETE, IN_DELETE_SELF, IN_MOVE_SELF = 0x100, 0x200, 0x400, 0x800
IN_UNMOUNT, IN_Q_OVERFLOW, IN_ONLYDIR, IN_ISDIR = 0x2000, 0x4000, 0x1000000, 0x40000000

# IN_CREATE is for directories: a new file is not complete before it is closed, and one that was
# linked is found by the next listing. IN_ATTRIB, as a change of mode changes the generation.
_MEMBERS = IN_CREATE | IN_CLOSE_WRITE | IN_ATTRIB | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE
_ITSELF = IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT
_EVENT = struct.Struct("=iIII")
_READ = 64 << 10  # bytes of events that a callback takes at most

_SUFFIX = ".img"
_STORED = re.compile(r"[0-9a-f]{64}\.img")

_libc = ctypes.CDLL(None, use_errno=True)

Watched = dict[int, tuple[str, ...]]
"""Directories by watch descriptor. The kernel has one for all paths that lead to one directory."""


class FileSources:
    """Regular files that are not empty. No link is followed: it could show us another's file."""

    provider = "files"

    def __init__(self, watched: tuple[str, ...], store: str) -> None:
        self._watched = tuple(str(Path(path).absolute()) for path in watched)
        self._store = store
        self._open = ExitStack()
        self._inotify: int | None = None
        self._emit: Emit = lambda _event: None
        self._directories: Watched = {}

    def start(self, emit: Emit) -> None:
        """Begin to report on the running loop, before the first listing. Raises MachineError."""
        try:
            self._inotify = _check(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
            self._open.callback(os.close, self._inotify)
            table = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
            self._open.callback(os.close, table)
            # It is always readable, and says POLLPRI on a change (proc(5)): seen through an epoll
            # descriptor of its own, the loop is only woken by changes.
            mounts = self._open.enter_context(select.epoll())
            mounts.register(table, select.EPOLLPRI)
        except OSError as error:
            raise _cannot("watch directories", error) from error
        self._emit = emit
        loop = asyncio.get_running_loop()
        for descriptor, callback in (
            (self._inotify, partial(self._on_change, self._inotify)),
            (mounts.fileno(), partial(self._on_mount, mounts)),
        ):
            loop.add_reader(descriptor, callback)
            self._open.callback(loop.remove_reader, descriptor)
        self._watch()

    def list_sources(self) -> tuple[Source, ...]:
        """All files that are there now. Raises MachineError where the store cannot be listed."""
        self._watch()
        stored = (
            f"{self._store}/{name}" for name in _names(self._store) if _STORED.fullmatch(name)
        )
        watched = [path for place in self._watched for path in self._files(place)]
        found = [read_source(path, SourceKind.STORED) for path in stored]
        found += [read_source(path, SourceKind.FILE) for path in dict.fromkeys(watched)]
        return tuple(source for source in found if source is not None)

    def close(self) -> None:
        """Stop reporting and free the descriptors."""
        self._inotify = None
        self._emit = lambda _event: None
        self._directories = {}
        self._open.close()

    def _on_change(self, inotify: int) -> None:
        changed: dict[str, None] = {}
        unsure = False
        for watch, mask, name in _read_events(inotify):
            unsure |= bool(mask & IN_Q_OVERFLOW)
            # There is none for a watch that was given up meanwhile.
            for directory in self._directories.get(watch, ()):
                path = f"{directory.rstrip('/')}/{name}"
                if mask & (_ITSELF | IN_ISDIR):
                    unsure |= bool(mask & _ITSELF) or self._leads_on(path)
                elif not mask & IN_CREATE and self._is_wanted(path):
                    changed[path] = None
        for path in changed:
            source = read_source(path, SourceKind.FILE)
            self._emit(SourceSeen(source) if source else SourceGone(path))
        if unsure:
            self._emit(EventsLost(self.provider))  # its listing finds and watches what is there now

    def _on_mount(self, mounts: select.epoll) -> None:
        mounts.poll(0)  # so that the descriptor is quiet again
        before = self._directories
        self._watch()
        if self._directories != before:
            self._emit(EventsLost(self.provider))

    def _files(self, place: str) -> tuple[str, ...]:
        if not os.path.isdir(place):  # noqa: PTH112 - Path.is_dir raises where it may not look
            return (place,)
        try:
            return tuple(f"{place}/{name}" for name in _names(place) if name.endswith(_SUFFIX))
        except MachineError as error:
            self._emit(EffectFailed(error.problem))
            return ()

    def _is_wanted(self, path: str) -> bool:
        directory, _, name = path.rpartition("/")
        listed = name.endswith(_SUFFIX) and directory in self._watched
        return name.isprintable() and (listed or path in self._watched)

    def _leads_on(self, path: str) -> bool:
        return any(f"{place}/".startswith(f"{path}/") for place in self._watched)

    def _watch(self) -> None:
        """Watch what is there now.

        Repeated until it is the same twice: a directory can appear just before the one above it
        is watched. The kernel gives the same number for the same directory, another after a mount.
        """
        if self._inotify is None:
            return
        before: Watched | None = None
        now = self._directories
        errors: dict[str, OSError] = {}
        while now != before:
            before, now, errors = now, {}, {}
            for path in self._watched:
                if nearest := _watch_nearest(self._inotify, path, errors):
                    watch, directory = nearest
                    now[watch] = tuple(dict.fromkeys((*now.get(watch, ()), directory)))
        for watch in self._directories.keys() - now.keys():
            _libc.inotify_rm_watch(self._inotify, watch)  # fails where the directory is gone
        self._directories = now
        for path, error in errors.items():
            self._emit(EffectFailed(_cannot(f"watch {path}", error).problem))


def read_source(path: str, kind: SourceKind) -> Source | None:
    """See what lies there; None where that is no regular file, or an empty one."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        return None
    generation = file_generation(status.st_ino, status.st_size, status.st_ctime_ns)
    return Source(id=SourceId(path, generation), kind=kind, size=status.st_size)


def _names(directory: str) -> list[str]:
    """Printable names only: others cannot be told in a message, nor typed by an operator."""
    try:
        return sorted(path.name for path in Path(directory).iterdir() if path.name.isprintable())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _cannot(f"list {directory}", error) from error


def _watch_nearest(inotify: int, wanted: str, errors: dict[str, OSError]) -> tuple[int, str] | None:
    """Watch a directory, or the nearest above it that can be: there it shows when this one can.

    Returns the watch descriptor and its path; None where even `/` cannot be watched.
    """
    path = wanted
    while True:
        mask = _MEMBERS | _ITSELF | IN_ONLYDIR
        try:
            return _check(_libc.inotify_add_watch(inotify, os.fsencode(path), mask)), path
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                errors.setdefault(wanted, error)
        if path == "/":
            return None
        path = str(Path(path).parent)


def _read_events(inotify: int) -> Iterator[tuple[int, int, str]]:
    """Take what waits; the rest is there when the loop comes again."""
    try:
        data = os.read(inotify, _READ)
    except BlockingIOError:
        return
    position = 0
    while position < len(data):
        watch, mask, _, length = _EVENT.unpack_from(data, position)
        position += _EVENT.size + length
        yield watch, mask, os.fsdecode(data[position - length : position].rstrip(b"\0"))


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _cannot(stage: str, error: OSError) -> MachineError:
    return MachineError(Code.IO, stage, (error.strerror or str(error)).lower())
