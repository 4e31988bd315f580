"""The store of verified images: files that only root writes, each a complete image by itself.

Bytes are hashed on their way in, once, and what was hashed is what is kept: reading the medium a
second time would give a hostile one the chance to answer differently.
"""

import errno
import fcntl
import hmac
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import sha256

from extsloader.image.superblock import reader
from extsloader.image.trailer import encode_trailer, find_end, read_trailer
from extsloader.image.verity import verify_tree, write_all
from extsloader.model.errors import ImageRefusedError
from extsloader.model.ids import Digest
from extsloader.model.manifest import ImageSpec
from extsloader.model.reasons import Code
from extsloader.verify.identity import FLAGS
from extsloader.verify.medium import Medium

CHUNK = 256 << 10  # bytes; of 1 MiB each copying took three times the processor time
PACE_WINDOW = 10.0  # seconds of reading over which a medium's rate is judged

Progress = Callable[[int, int], None]


class Pace:
    """Refuses a medium that delivers too slowly; the time to write our copy does not count."""

    def __init__(self, min_rate: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._min_rate = min_rate  # bytes a second
        self._clock = clock
        self._spent = 0.0
        self._bytes = 0

    def timed(self, read: Callable[[], int]) -> int:
        """Do one read. Raises ImageRefusedError(E_TIMEOUT) at the end of a slow window."""
        before = self._clock()
        done = read()
        self._spent += self._clock() - before
        self._bytes += done
        if self._spent >= PACE_WINDOW:
            rate = self._bytes / self._spent
            if rate < self._min_rate:
                raise ImageRefusedError(
                    Code.TIMEOUT,
                    f"cannot copy the image: at least {self._min_rate} bytes a second expected, "
                    f"{rate:.0f} got",
                    "use a faster medium",
                )
            self._spent, self._bytes = 0.0, 0
        return done


class Store:
    """One directory with an open descriptor on it. Raises ImageRefusedError, in every method."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def find(
        self,
        image: ImageSpec,
        envelope: bytes,
        progress: Progress,
        outranks: Callable[[bytes], bool] = lambda _: False,
    ) -> int | None:
        """A descriptor of the same image, if its bytes are still good; signed as it is now.

        The file stays the one that may be mounted already: only its trailer is written anew, and
        not even that if the envelope that it has `outranks` this one.
        """
        name = image_name(image.digest)
        try:
            descriptor = os.open(name, FLAGS, dir_fd=self._descriptor)
        except OSError:
            return None
        try:
            with _store_errors("read"):
                got = hash_all(partial(_read_into, descriptor), image.size, progress)
                check_digest(image, got)
            with _alone(descriptor):
                stored = _read_envelope(descriptor, image.size)
                if stored != envelope and not (stored and outranks(stored)):
                    self._sign_anew(name, image.size, envelope)
        except ImageRefusedError:  # damaged on our own disk: the medium has a good one
            os.close(descriptor)
            return None
        return descriptor

    def _sign_anew(self, name: str, size: int, envelope: bytes) -> None:
        """A power cut in here costs this copy: its trailer's checksum shows it (docs, trailer)."""
        trailer = encode_trailer(size, envelope)
        with _store_errors("write"):
            descriptor = os.open(name, os.O_RDWR | os.O_NOFOLLOW, dir_fd=self._descriptor)
            try:
                write_all(descriptor, trailer, size)
                os.ftruncate(descriptor, size + len(trailer))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def check_room(self, image: ImageSpec, reserve: int) -> None:
        """Refuse before copying what cannot fit (E_RESOURCE)."""
        status = os.fstatvfs(self._descriptor)
        free = status.f_bavail * status.f_frsize - reserve
        if image.size > free:
            raise ImageRefusedError(
                Code.RESOURCE,
                f"cannot store the image: {image.size} bytes needed, {max(free, 0)} free in "
                f"{self.path}",
                "make room there",
            )

    def keep(
        self, medium: Medium, image: ImageSpec, envelope: bytes, pace: Pace, progress: Progress
    ) -> int:
        """Copy while hashing, check the copy and publish it; a read-only descriptor of it."""
        trailer = encode_trailer(image.size, envelope)
        with _store_errors("write"):
            descriptor = os.open(".", os.O_RDWR | os.O_TMPFILE, 0o600, dir_fd=self._descriptor)
            try:
                # A disk that fills up shows now, and writing to allocated blocks is cheaper.
                os.posix_fallocate(descriptor, 0, image.size + len(trailer))
                check_digest(image, copy(medium, descriptor, image.size, pace, progress))
                _check_while_flushing(descriptor, image)
                write_all(descriptor, trailer, image.size)
                os.fsync(descriptor)
                medium.check()
                self._publish(descriptor, image_name(image.digest))
                return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY)
            finally:
                os.close(descriptor)

    def _publish(self, descriptor: int, name: str) -> None:
        """Give the finished file its name; before that, nobody can see or mount it."""
        try:
            self._link(descriptor, name)
        except FileExistsError:  # damaged: replaced in one step
            self._unlink(f"{name}.new")
            self._link(descriptor, f"{name}.new")
            os.replace(
                f"{name}.new", name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor
            )
        os.fsync(self._descriptor)

    def _link(self, descriptor: int, name: str) -> None:
        # With a directory descriptor os.link uses linkat(AT_SYMLINK_FOLLOW), as O_TMPFILE needs.
        os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=self._descriptor)

    def _unlink(self, name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._descriptor)


@contextmanager
def open_store(path: str) -> Iterator[Store]:
    """Open the store, which the daemon has made."""
    with _store_errors("open"):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield Store(path, descriptor)
    finally:
        os.close(descriptor)


def copy(medium: Medium, target: int, size: int, pace: Pace, progress: Progress) -> str:
    """Copy exactly `size` bytes; the digest of what was written, in hex.

    In one thread: reading and writing take a third of the time of hashing, and handing the chunks
    to a second thread costs nearly as much (measured, 512 MiB: 0.41 s of processor time instead of
    0.34 s), so that it pays only while both processors are idle.
    """
    state = sha256()
    buffer = memoryview(bytearray(CHUNK))
    for offset in range(0, size, CHUNK):
        part = buffer[: min(CHUNK, size - offset)]
        _fill(part, medium, offset, size, pace)
        state.update(part)
        write_all(target, part, offset)
        progress(offset + len(part), size)
    return state.hexdigest()


def _fill(part: memoryview, medium: Medium, offset: int, size: int, pace: Pace) -> None:
    """Read until the buffer is full. Raises ImageRefusedError, E_SIZE at the medium's end."""
    got = 0
    while got < len(part):
        done = pace.timed(partial(medium.read_into, part[got:], offset + got))
        if not done:
            medium.check()
            raise ImageRefusedError(
                Code.SIZE, f"cannot copy the image: {size} bytes expected, {offset + got} got"
            )
        got += done


def hash_all(read_into: Callable[[memoryview, int], int], size: int, progress: Progress) -> str:
    """Digest of the first `size` bytes, in hex; of fewer, where there are no more."""
    state = sha256()
    buffer = memoryview(bytearray(CHUNK))
    offset = 0
    while offset < size:
        done = read_into(buffer[: min(CHUNK, size - offset)], offset)
        if not done:
            break
        state.update(buffer[:done])
        offset += done
        progress(offset, size)
    return state.hexdigest()


def _check_while_flushing(descriptor: int, image: ImageSpec) -> None:
    """The disk writes while the processor hashes: together they take as long as the longer one."""
    with ThreadPoolExecutor(1) as pool:
        flushed = pool.submit(os.fdatasync, descriptor)
        check_content(descriptor, image)
        flushed.result()


def check_digest(image: ImageSpec, got: str) -> None:
    """Are these the signed bytes? Raises E_DIGEST."""
    if not hmac.compare_digest(image.digest, got):
        raise ImageRefusedError(
            Code.DIGEST,
            f"cannot accept the image: sha256 {image.digest} is signed, {got} found",
            "the medium is damaged or was changed: write the image anew",
        )


def check_content(descriptor: int, image: ImageSpec) -> None:
    """Did the signer sign something that fits together? Raises E_SIZE, E_FS_TYPE or E_VERITY."""
    end = find_end(reader(descriptor))
    if end != image.size:
        raise ImageRefusedError(
            Code.SIZE,
            f"cannot accept the image: {image.size} bytes are signed, its file system needs {end}",
            "build the image anew, and sign what was built",
        )
    verify_tree(descriptor, image.verity)


@contextmanager
def _alone(descriptor: int) -> Iterator[None]:
    """Other helpers that sign the same file wait meanwhile; the lock dies with its helper."""
    with _store_errors("lock"):
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # the descriptor lives on in the daemon


def _read_envelope(descriptor: int, size: int) -> bytes:
    """Empty where there is none, or a damaged one."""
    try:
        trailer = read_trailer(reader(descriptor), size)
    except ImageRefusedError:
        return b""
    return trailer.envelope if trailer else b""


def _read_into(descriptor: int, buffer: memoryview, offset: int) -> int:
    return os.preadv(descriptor, [buffer], offset)


def image_name(digest: Digest) -> str:
    """Name of an image's file in the store."""
    return f"{digest}.img"


@contextmanager
def _store_errors(action: str) -> Iterator[None]:
    """Our own disk's errors are not the medium's: full is E_RESOURCE, all else E_IO."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)
        raise ImageRefusedError(
            Code.RESOURCE if full else Code.IO,
            f"cannot {action} the store: {os.strerror(error.errno or 0).lower()}",
            "make room there" if full else "look at the disk that holds the store",
        ) from error
