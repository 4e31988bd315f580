"""Starting conmon and hearing from it whether the container was created."""

import asyncio
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from extsloader.adapters.oci import conmon
from extsloader.adapters.oci.processes import (
    ENVIRONMENT,
    Identity,
    identify,
    memory_file,
    read_text,
    readable,
    reap,
    spawn,
)
from extsloader.model.ids import ServiceName
from extsloader.ports.machine import LogPort

MAX_ANSWER = 64 << 10


@dataclass(frozen=True, slots=True)
class Launch:
    """A conmon at work; `reader` is our end of its sync pipe."""

    identity: Identity
    reader: int
    errors: int

    def kill(self) -> None:
        """End conmon and what it started; whoever hears its pipe then hears the end of it."""
        with suppress(ProcessLookupError):
            os.killpg(self.identity.pid, signal.SIGKILL)  # not reaped, so the number is its own

    async def hear_pid(self, deadline: float) -> int:
        """The pid of the created container's first process.

        Raises ValueError with the runtime's reason, and TimeoutError after `deadline` seconds.
        """
        answer = b""
        async with asyncio.timeout(deadline):
            while not answer.endswith(b"\n") and len(answer) < MAX_ANSWER:
                await readable(self.reader)
                part = os.read(self.reader, MAX_ANSWER)
                if not part:
                    break
                answer += part
        return conmon.read_pid(answer, read_text(self.errors))


@dataclass(frozen=True, slots=True)
class Streams:
    """What becomes a container's output; `complaints` are the runtime's own, in a file."""

    output: int
    errors: int
    complaints: int


@contextmanager
def launched(argv: Sequence[str], streams: Streams | None = None) -> Iterator[Launch]:
    """A conmon that is killed, and what it started with it, if the block fails. Raises OSError."""
    with memory_file() as output, memory_file() as own, _pipe() as (reader, writer):
        environment = {**ENVIRONMENT, "_OCI_SYNCPIPE": f"{conmon.SYNC_PIPE}"}
        outputs = (streams.output, streams.errors) if streams else (output, own)
        errors = streams.complaints if streams else own
        with closing_descriptor(writer):
            pid, pidfd = spawn(argv, environment, *outputs, writer)
        try:
            yield Launch(_identify_child(pid, errors), reader, errors)
        except BaseException:
            os.killpg(pid, signal.SIGKILL)  # not reaped yet, so the number is still its own
            reap(pidfd)
            raise
        os.close(pidfd)  # collected by whoever watches it


@contextmanager
def passed_on(logs: LogPort, service: ServiceName, complaints: Path) -> Iterator[Streams | None]:
    """Streams that somebody else reads, without us; None where nobody does. Raises OSError."""
    with (
        _pipe() as (output, to_output),
        closing_descriptor(to_output),
        _pipe() as (errors, to_errors),
        closing_descriptor(to_errors),
    ):
        if not logs.pass_on(service, output, errors):
            yield None
            return
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        with closing_descriptor(opened := os.open(complaints, flags, 0o600)):
            yield Streams(to_output, to_errors, opened)


@contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    """Both ends of a pipe; the reader is closed in the end, the writer is the caller's."""
    reader, writer = os.pipe()
    with closing_descriptor(reader):
        yield reader, writer


def _identify_child(pid: int, errors: int) -> Identity:
    identity = identify(pid)
    if identity is None:
        raise ValueError(conmon.find_reason(read_text(errors)) or "conmon ended at once")
    return identity


def set_nice(pid: int, nice: int) -> None:
    """Set the nice value of a process that waits for its start.

    OCI 1.0 has no field for it. Threads have their own value (setpriority(2)), and it is not said
    which one of the runtime's will execute the service. Raises OSError.
    """
    if nice:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.setpriority(os.PRIO_PROCESS, int(thread.name), nice)


@contextmanager
def closing_descriptor(descriptor: int) -> Iterator[None]:
    """Close the descriptor in the end."""
    try:
        yield
    finally:
        os.close(descriptor)
