"""The one way in which this adapter runs other programs.

posix_spawn, pidfd and a memory file for the output: no thread per child as asyncio of Python 3.11
has, no global child watcher, and no pipe that a grandchild could hold open for ever.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = MappingProxyType({"PATH": PATH, "LC_ALL": "C"})
"""Nothing of ours: runc, for one, acts on NOTIFY_SOCKET and LISTEN_FDS of its own environment."""

MAX_OUTPUT = 64 << 10
MOMENT = 1.0  # seconds
STANDARD_ERROR = 2


@dataclass(frozen=True, slots=True)
class Identity:
    """A process that cannot be taken for another one that got the same pid later."""

    pid: int
    started: int  # clock ticks since boot (proc(5), /proc/[pid]/stat field 22)
    parent: int


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended and what it said."""

    code: int  # negative: killed by this signal
    output: str
    errors: str


def spawn(argv: Sequence[str], env: Mapping[str, str], *descriptors: int) -> tuple[int, int]:
    """Start a program in a session of its own; returns its pid and a pidfd, both the caller's.

    `descriptors` become 1, 2, 3 ... in the child; its 0 is /dev/null. Raises OSError.
    """
    # Ascending targets never overwrite a source that is still needed: sources are above 2.
    actions: list[tuple[int, int] | tuple[int, int, int] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
    ]
    actions += [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(descriptors, 1)]
    pid = os.posix_spawn(
        argv[0],
        list(argv),
        env,
        file_actions=actions,
        setsid=True,
        setsigmask=(),
        setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # Python ignores them
    )
    try:
        return pid, os.pidfd_open(pid)
    except OSError:  # no descriptor left: better no child than one that nobody can end
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def keep_descriptors() -> None:
    """Pass nothing on that we were started with; what Python opens is not passed on anyway."""
    for link in Path("/proc/self/fd").iterdir():
        number = int(link.name)
        with suppress(OSError):  # the listing's own descriptor is closed by now
            os.set_inheritable(number, number <= STANDARD_ERROR)


async def run(
    argv: Sequence[str], deadline: float, end_work: Callable[[int], bool] = lambda _: False
) -> Ended:
    """Run a program to its end. Raises OSError, and TimeoutError after killing it.

    `end_work` gets the pid of a program that took too long; where it returns True, the program has
    lost what it waited for, and gets a moment to end by itself.
    """
    with memory_file() as output, memory_file() as errors:
        pid, pidfd = spawn(argv, ENVIRONMENT, output, errors)
        try:
            async with asyncio.timeout(deadline):
                await readable(pidfd)
        except BaseException:  # the deadline, or whoever wanted to know does not any more
            await _stop(pid, pidfd, end_work)
            raise
        finally:
            code = reap(pidfd)
        if code is None:
            raise ChildProcessError(f"somebody else has collected {argv[0]}")
        return Ended(code, read_text(output), read_text(errors))


async def _stop(pid: int, pidfd: int, end_work: Callable[[int], bool]) -> None:
    try:
        if end_work(pid):
            await _wait_a_moment(pidfd)
    finally:
        os.killpg(pid, signal.SIGKILL)  # not reaped yet, so the number is still its own
        await _wait_a_moment(pidfd)


async def _wait_a_moment(pidfd: int) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(MOMENT):
            await readable(pidfd)


async def readable(descriptor: int) -> None:
    """Wait until there is something to read; a pidfd becomes so when its process ends."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    loop.add_reader(descriptor, _finish, done)
    try:
        await done
    finally:
        loop.remove_reader(descriptor)


def _finish(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def reap(pidfd: int) -> int | None:
    """Collect a child that has ended and close its pidfd; None for somebody else's child.

    One that was only just killed is collected when it has ended, without anybody waiting for it.
    """
    code: int | None = None
    try:
        status = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        pass
    else:
        if status is None:
            asyncio.get_running_loop().add_reader(pidfd, _reap_late, pidfd)
            return None
        exited = status.si_code == os.CLD_EXITED
        code = status.si_status if exited else -status.si_status
    os.close(pidfd)
    return code


def _reap_late(pidfd: int) -> None:
    asyncio.get_running_loop().remove_reader(pidfd)
    reap(pidfd)


def identify(pid: int) -> Identity | None:
    """Who has this pid now; None where nobody has, or only a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name in parentheses may hold spaces and parentheses itself.
    fields = stat.rpartition(")")[2].split()
    if fields[0] in "ZX":
        return None
    return Identity(pid=pid, started=int(fields[19]), parent=int(fields[1]))


def open_process(wanted: Identity) -> int | None:
    """A pidfd of exactly this process; None where it has ended."""
    try:
        pidfd = os.pidfd_open(wanted.pid)
    except OSError:
        return None
    # Looked at after opening: from here on the pidfd cannot come to mean another process.
    found = identify(wanted.pid)
    if found is not None and found.started == wanted.started:
        return pidfd
    os.close(pidfd)
    return None


def kill(pidfd: int, number: int) -> None:
    """Send a signal; no error when the process is gone."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)


@contextmanager
def memory_file() -> Iterator[int]:
    """A file for a child's output that is never on a disk."""
    descriptor = os.memfd_create("output")
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_text(descriptor: int) -> str:
    """The first 64 KiB of what a child wrote."""
    return os.pread(descriptor, MAX_OUTPUT, 0).decode("utf-8", "replace")
