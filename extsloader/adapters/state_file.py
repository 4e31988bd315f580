"""Small files that survive power cuts, bad disks and hands in the wrong place (`StatePort`).

A file is magic, kind, version and length, the SHA-256 of these and the payload, and the payload.
It is written beside its name, synced and renamed; the generation before is kept as `<name>.old`.
A file that cannot be used is never in the way: it goes to `quarantine/`, or to `<name>.future`
when a newer agent has written it, which an upgrade will want to find again.
"""

import errno
import os
import re
import stat
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Generic, TypeVar

from extsloader.model.errors import MachineError
from extsloader.model.reasons import Code, Problem
from extsloader.ports.state import Loaded

T = TypeVar("T")

MAGIC = b"EXTSTATE"
QUARANTINE = "quarantine"
MAX_FILES, MAX_BYTES = 4, 1 << 20  # of the quarantine, which all files of a directory share

_FIELDS = struct.Struct("<8s16sIQ")  # magic, kind, version, length of the payload
_DIGEST = sha256().digest_size
HEADER = _FIELDS.size + _DIGEST

# No link is followed, and a FIFO does not make `open` wait.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_UNUSABLE = (OSError, ValueError, RecursionError)  # the last: JSON nested too deep
_NUMBERED = re.compile("[0-9]{8}-")


class _FutureError(ValueError):
    """A newer agent has written it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateFile(Generic[T]):
    """One file and its generation before; `decode` raises ValueError for impossible content."""

    path: Path
    kind: str  # at most 16 ASCII letters: a file under another file's name is not taken for it
    decode: Callable[[bytes], T]
    version: int = 1
    limit: int = 64 << 10  # bytes of payload

    def read(self) -> Loaded[T]:
        """The newest generation that can be used; the others are put aside. Raises nothing."""
        problems: list[Problem] = []
        for path in (self.path, _beside(self.path, "old")):
            try:
                return Loaded(value=self._load(path), problems=tuple(problems))
            except FileNotFoundError:
                continue
            except _UNUSABLE as error:
                problems.append(_lost(path, error, _put_aside(path, error)))
        return Loaded(value=None, problems=tuple(problems))

    def write(self, payload: bytes) -> None:
        """Replace the file whole; what was there becomes the generation before.

        Raises MachineError(E_STATE): then it counts as not written. After a failed fsync Linux
        calls the lost pages clean, so only a new file may be tried, which the next call does.
        """
        new = _beside(self.path, "new")
        if len(payload) > self.limit:
            reason = f"at most {self.limit} bytes expected, {len(payload)} got"
            raise MachineError(Code.STATE, f"write {self.path}", reason)
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make_way(new)
            _write_synced(new, encode(self.kind, self.version, payload))
            self._keep_generation()
            new.rename(self.path)
            _sync_directory(self.path.parent)
        except OSError as error:
            with suppress(OSError):
                new.unlink()
            raise MachineError(
                Code.STATE, f"write {self.path}", _reason(error), "look at the disk that holds it"
            ) from error

    def _load(self, path: Path) -> T:
        """Raises what `_UNUSABLE` says."""
        raw = _read_bounded(path, HEADER + self.limit)
        return self.decode(decode(raw, self.kind, self.version))

    def _keep_generation(self) -> None:
        """A damaged file must not push out the good one before it. Raises OSError."""
        try:
            self._load(self.path)
        except FileNotFoundError:
            return
        except _UNUSABLE as error:
            _put_aside(self.path, error)
        else:
            old = _beside(self.path, "old")
            _make_way(old)
            self.path.rename(old)


def encode(kind: str, version: int, payload: bytes) -> bytes:
    """The bytes of a file."""
    fields = _FIELDS.pack(MAGIC, kind.encode("ascii"), version, len(payload))
    return fields + sha256(fields + payload).digest() + payload


def decode(raw: bytes, kind: str, version: int) -> bytes:
    """The payload. Raises ValueError with the reason."""
    if len(raw) < HEADER:
        raise ValueError(f"at least {HEADER} bytes expected, {len(raw)} got")
    fields, digest, payload = raw[: _FIELDS.size], raw[_FIELDS.size : HEADER], raw[HEADER:]
    magic, found, number, length = _FIELDS.unpack(fields)
    if magic != MAGIC:
        raise ValueError("it is no state file")
    if length != len(payload):
        raise ValueError(f"{length} bytes of content expected, {len(payload)} got")
    if sha256(fields + payload).digest() != digest:
        raise ValueError("its checksum is wrong")
    if found.rstrip(b"\0") != kind.encode("ascii"):
        raise ValueError(f"kind {kind} expected, {found.rstrip(bytes(1)).decode('latin-1')} got")
    if number != version:
        error = _FutureError if number > version else ValueError
        raise error(f"version {version} expected, {number} got")
    return payload


def _read_bounded(path: Path, limit: int) -> bytes:
    """Read a regular file whole. Raises OSError, or ValueError for anything else."""
    descriptor = os.open(path, _READ)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no regular file")
        if status.st_size > limit:
            raise ValueError(f"at most {limit} bytes expected, {status.st_size} got")
        raw = b""
        while part := os.read(descriptor, limit - len(raw)):
            raw += part
    finally:
        os.close(descriptor)
    return raw


def _write_synced(path: Path, raw: bytes) -> None:
    descriptor = os.open(path, _WRITE, 0o600)
    try:
        rest = memoryview(raw)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_way(path: Path) -> None:
    """Delete what a write that was cut short has left. Raises OSError."""
    try:
        path.unlink(missing_ok=True)
    except IsADirectoryError as error:
        _put_aside(path, error)


def _put_aside(path: Path, error: Exception) -> str:
    """Get it out of the way and say where it is now; it stays where it is if that fails."""
    try:
        if isinstance(error, _FutureError):
            target = _beside(path.with_name(path.name.removesuffix(".old")), "future")
            path.rename(target)
            return f"kept as {target} for the agent that wrote it"
        return _quarantine(path)
    except OSError as failure:
        return f"left where it is: {_reason(failure)}"


def _quarantine(path: Path) -> str:
    """Keep it for questions if there is room; the oldest ones make room. Raises OSError."""
    folder = path.parent / QUARANTINE
    folder.mkdir(mode=0o700, exist_ok=True)
    size = os.lstat(path).st_size
    for oldest in _kept(folder):
        if size <= MAX_BYTES and not _has_room(folder, size):
            with suppress(OSError):
                _delete(oldest)
    if not _has_room(folder, size):
        _delete(path)
        return "deleted, as the quarantine has no room for it"
    number = max((int(found.name[:8]) for found in _kept(folder)), default=0) + 1
    target = folder / f"{number:08}-{path.name}"
    path.rename(target)
    return f"kept as {target}"


def _kept(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _NUMBERED.match(path.name))


def _has_room(folder: Path, size: int) -> bool:
    sizes = [os.lstat(path).st_size for path in _kept(folder)]
    return len(sizes) < MAX_FILES and size + sum(sizes) <= MAX_BYTES


def _delete(path: Path) -> None:
    """Raises OSError, also for a directory that is not empty: somebody may miss what is in it."""
    try:
        path.unlink()
    except IsADirectoryError:
        path.rmdir()


def _lost(path: Path, error: Exception, now: str) -> Problem:
    return Problem(
        Code.STATE,
        f"cannot use the state file {path}: {_reason(error)}",
        f"it is {now}; nothing to do, unless it happens again: then look at the disk",
    )


def _reason(error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.ELOOP:
        return "it is a symbolic link"
    return os.strerror(number).lower() if number else str(error)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f"{path.name}.{suffix}")
