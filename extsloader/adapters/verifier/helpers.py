"""Helper processes: each is a fresh Python, or a fork of one that has loaded everything already.

A helper is noticed by its pidfd whenever it ends, so one that hangs in the kernel, where SIGKILL
has to wait, never holds up the loop.
"""

import asyncio
import os
import signal
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field

from extsloader.model.helper import MAX_MESSAGE
from extsloader.model.isolation import ENVIRONMENT, OPTIONS

FORK_WITHIN = 2.0
"""Seconds; a fork takes little, but who forks may still be loading on a slow device."""


@dataclass(frozen=True, slots=True)
class Helper:
    """A process, our end of its standard input, and whether it has ended."""

    channel: socket.socket
    pidfd: int  # open until it has ended
    process: subprocess.Popen[bytes] | None  # None for a fork, which is the other one's child
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def kill(self) -> None:
        """Hear no more of it; `ended` is set as soon as the kernel lets it go."""
        self.channel.close()
        if not self.ended.is_set():
            with suppress(ProcessLookupError):  # it has been collected, and we shall hear of it
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)


def start(python: str, job: str, packet: bytes) -> Helper:
    """Start one in a session of its own, with its request. Raises OSError."""
    ours, theirs = _connect(packet)
    try:
        with theirs:
            process = subprocess.Popen(
                [python, *OPTIONS, "extsloader.verify", job],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=ENVIRONMENT,
                cwd="/",
                start_new_session=True,
            )
        return watch(process, ours)
    except OSError:
        ours.close()
        raise


async def fork(loaded: Helper, job: str, packet: bytes) -> Helper | None:
    """Let `loaded` fork one (`extsloader.helper`); None if it does not. Raises OSError.

    The fork's first packet has its pidfd: it is nobody's but `loaded`'s to find by its number.
    """
    ours, theirs = _connect(packet)
    received: list[int] = []
    try:
        with theirs, suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            socket.send_fds(loaded.channel, [job.encode()], [theirs.fileno()])
        with suppress(TimeoutError):
            async with asyncio.timeout(FORK_WITHIN):
                await receive(ours, received)
    except BaseException:
        ours.close()  # it ends when it finds nobody at the other end
        raise
    if received:
        return _notice_end(Helper(ours, received[0], None))
    ours.close()
    return None


def watch(process: subprocess.Popen[bytes], channel: socket.socket) -> Helper:
    """Collect the process when it ends, without a thread and without SIGCHLD. Raises OSError."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:  # no descriptor left: better no helper than one that nobody collects
        process.kill()
        process.wait()
        raise
    return _notice_end(Helper(channel, descriptor, process))


async def receive(channel: socket.socket, received: list[int]) -> tuple[bytes, bool]:
    """Wait for one packet, and whether all of it has come; empty when the other end is closed.

    Its descriptor, if any, is added to `received`.
    """
    while True:
        try:
            packet, descriptors, flags, _ = socket.recv_fds(
                channel, MAX_MESSAGE, 1, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            await _readable(channel)
            continue
        except ConnectionResetError:  # it ended before it had read the request
            return b"", True
        received += descriptors
        return packet, not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)


def _connect(packet: bytes) -> tuple[socket.socket, socket.socket]:
    """Both ends; the packet waits in the socket until the helper reads it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    ours.send(packet)
    return ours, theirs


def _notice_end(helper: Helper) -> Helper:
    loop = asyncio.get_running_loop()

    def notice() -> None:
        loop.remove_reader(helper.pidfd)
        os.close(helper.pidfd)
        if helper.process is not None:
            helper.process.wait()
        helper.ended.set()

    loop.add_reader(helper.pidfd, notice)
    return helper


async def _readable(channel: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(channel, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(channel)
