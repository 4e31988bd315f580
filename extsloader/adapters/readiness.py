"""`ReadinessPort`: single checks whether a service is ready, and its sd_notify(3) socket."""

import asyncio
import ctypes
import os
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import h11

from extsloader.model.errors import MachineError
from extsloader.model.ids import ServiceName
from extsloader.model.manifest import ProbeKind, Readiness
from extsloader.model.plan import ContainerPlan
from extsloader.model.reasons import Code

Found = TypeVar("Found")

Execute = Callable[[ServiceName, tuple[str, ...], float], Awaitable[tuple[int, str]]]
"""Runs a command in a service's container: exit code and reason. Raises MachineError."""

NO_COMMAND = re.compile(r"executable file.* not found|exec: .*: (no such file|permission denied)")
"""What runc and crun say of a command that the container does not have, or may not execute."""

MAX_MESSAGE = 4096  # bytes of one notification
MAX_MESSAGES = 16  # at a time, so that a chatty service cannot hold up the loop

_OPENAT2 = 437  # the same number on every architecture (asm-generic/unistd.h)
_RESOLVE_NO_MAGICLINKS = 0x02  # linux/openat2.h
_RESOLVE_IN_ROOT = 0x10


@dataclass(frozen=True, slots=True)
class Listener:
    """The open notify socket of one service."""

    socket: socket.socket
    path: Path
    mark: Path  # there once READY=1 was heard: the next agent asks for it


class ServiceReadiness:
    """Checks services from the host's side."""

    def __init__(self, execute: Execute) -> None:
        self._execute = execute
        self._listeners: dict[ServiceName, Listener] = {}
        self._looks = Looks()

    def listen(
        self,
        service: ServiceName,
        directory: str,
        on_ready: Callable[[], None],
        *,
        again: bool = False,
    ) -> bool:
        """As `ReadinessPort.listen`. Raises MachineError."""
        self.forget(service)
        path, mark = Path(directory, "notify"), Path(f"{directory}.ready")
        try:
            if not again:
                mark.unlink(missing_ok=True)
            listener = Listener(_bind(path), path, mark)
        except OSError as error:
            reason = error.strerror or f"{error}"
            raise MachineError(Code.RUNTIME, f"listen for {service} at {path}", reason) from error
        self._listeners[service] = listener
        read = _Notifications(listener, on_ready).read
        asyncio.get_running_loop().add_reader(listener.socket, read)
        return mark.exists()

    def forget(self, service: ServiceName) -> None:
        """As `ReadinessPort.forget`; no error when nobody listens."""
        if listener := self._listeners.pop(service, None):
            asyncio.get_running_loop().remove_reader(listener.socket)
            listener.socket.close()
            listener.path.unlink(missing_ok=True)
            listener.mark.unlink(missing_ok=True)

    async def check(
        self, plan: ContainerPlan, readiness: Readiness, pid: int, deadline: float
    ) -> tuple[bool, str]:
        """As `ReadinessPort.check`; connections are made in the host's network namespace."""
        if readiness.kind is ProbeKind.EXEC:  # has its deadline below, to end the command
            return await self._run(plan.service, readiness.command, deadline)
        try:
            async with asyncio.timeout(deadline):
                return await self._check(plan.service, readiness, pid)
        except TimeoutError:
            return False, f"no answer within {deadline:g} s"
        except OSError as error:  # asyncio words some of them itself, with Python's brackets
            return False, os.strerror(error.errno).lower() if error.errno else f"{error}"

    async def _check(
        self, service: ServiceName, readiness: Readiness, pid: int
    ) -> tuple[bool, str]:
        match readiness.kind:
            case ProbeKind.TCP | ProbeKind.HTTP:
                look = partial(_resolve, readiness.host, readiness.port)
                addresses = await self._looks.run(service, look)
                if readiness.kind is ProbeKind.HTTP:
                    return await _get(readiness, addresses)
                async with _connected(readiness, addresses):
                    return True, ""
            case ProbeKind.FILE:
                there = await self._looks.run(service, partial(_exists, pid, readiness.path))
                return there, "" if there else f"there is no {readiness.path}"
            case _:
                return False, f"{readiness.kind} is not found out by a check"

    async def _run(
        self, service: ServiceName, command: tuple[str, ...], deadline: float
    ) -> tuple[bool, str]:
        try:
            code, reason = await self._execute(service, command, deadline)
        except MachineError as error:
            return False, error.problem.message
        if code and NO_COMMAND.search(reason):
            raise MachineError(Code.READINESS, f"run {command[0]} in {service}", reason)
        return code == 0, "" if code == 0 else f"exit code {code}: {reason}".rstrip(": ")


class Looks:
    """Calls that may hang for ever: a file system of the service, a name server.

    Each in a thread of its own, at most one for a service, so that one that hangs harms only that
    service. Daemon threads, as neither Python's pools nor asyncio end before theirs have.
    """

    def __init__(self) -> None:
        self._hanging: dict[ServiceName, Future[Any]] = {}

    async def run(self, service: ServiceName, look: Callable[[], Found]) -> Found:
        """What it returns, or raises; OSError while the one before has not come back."""
        self._hanging = {name: f for name, f in self._hanging.items() if not f.done()}
        if service in self._hanging:
            raise OSError("the check before this one still hangs")
        found: Future[Found] = Future()
        found.set_running_or_notify_cancel()  # nobody who gives up can cancel it any more
        thread = Thread(target=_look, args=(look, found), name=f"check {service}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # Python's word for a limit of processes that is reached
            raise OSError(f"{error}") from error
        self._hanging[service] = found
        return await asyncio.wrap_future(found)


def _look(look: Callable[[], Found], found: Future[Found]) -> None:
    try:
        found.set_result(look())
    except Exception as error:  # noqa: BLE001 - it is raised where the outcome is awaited
        found.set_exception(error)


def _resolve(host: str, port: int) -> tuple[str, ...]:
    """Numeric addresses: asyncio would look a name up in its default threads. Raises OSError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:  # whose errno is none of the kernel's
        reason = error.strerror if isinstance(error, OSError) else "it is no name"
        raise OSError(f"cannot resolve {host}: {reason}".lower()) from None
    return tuple(f"{entry[4][0]}" for entry in found)


class _Notifications:
    """What one service says; READY=1 is passed on once."""

    def __init__(self, listener: Listener, on_ready: Callable[[], None]) -> None:
        self._listener = listener
        self._on_ready: Callable[[], None] | None = on_ready

    def read(self) -> None:
        """Take some messages. Later ones are taken as well: a full queue would block the service.

        Descriptors that come along are never ours: recv(2) gives no room for them (unix(7)).
        """
        with suppress(BlockingIOError):
            for _ in range(MAX_MESSAGES):
                lines = self._listener.socket.recv(MAX_MESSAGE).split(b"\n")
                if b"READY=1" in lines and self._on_ready:
                    report, self._on_ready = self._on_ready, None
                    with suppress(OSError):  # then only an agent after us will not know
                        self._listener.mark.touch()
                    report()


def _bind(path: Path) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    # The name of a socket is limited to 107 bytes (unix(7)), a path under /proc is short.
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{directory}/{path.name}")
        path.chmod(0o666)  # a service may run as any user; only it sees the directory
    except OSError:
        listener.close()
        raise
    finally:
        os.close(directory)
    return listener


@asynccontextmanager
async def _connected(
    readiness: Readiness, addresses: tuple[str, ...]
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await _connect(addresses, readiness.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def _connect(
    addresses: tuple[str, ...], port: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """To the first that answers. Raises OSError."""
    *others, last = addresses
    for address in others:
        with suppress(OSError):
            return await asyncio.open_connection(address, port)
    return await asyncio.open_connection(last, port)


async def _get(readiness: Readiness, addresses: tuple[str, ...]) -> tuple[bool, str]:
    """HTTP GET: any answer of 2xx or 3xx is ready."""
    connection = h11.Connection(our_role=h11.CLIENT)
    host = f"{readiness.host}:{readiness.port}"
    request = h11.Request(
        method="GET",
        target=readiness.path or "/",
        headers=[("Host", host), ("User-Agent", "extsloader"), ("Connection", "close")],
    )
    async with _connected(readiness, addresses) as (reader, writer):
        writer.write(connection.send(request) + connection.send(h11.EndOfMessage()))
        try:
            status = await _read_status(connection, reader)
        except h11.RemoteProtocolError as error:
            return False, f"no HTTP answer: {error}"
    ready = 200 <= status < 400  # noqa: PLR2004 - the classes of RFC 9110, 15
    return ready, "" if ready else f"HTTP status {status}"


async def _read_status(connection: h11.Connection, reader: asyncio.StreamReader) -> int:
    """Status of the final answer; h11 bounds its size."""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(4096))
        elif isinstance(event, h11.Response):
            return int(event.status_code)


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def _exists(pid: int, path: str) -> bool:
    """Whether the process's root holds the path, as the process would follow it (openat2(2))."""
    how = _OpenHow(os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found: int = ctypes.CDLL(None).syscall(
            ctypes.c_long(_OPENAT2),
            ctypes.c_int(root),
            os.fsencode(path),
            ctypes.byref(how),
            ctypes.sizeof(how),
        )
    finally:
        os.close(root)
    if found >= 0:
        os.close(found)
    return found >= 0
