"""What a container writes, passed on to whoever reads it."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from extsloader.model.ids import ServiceName
from extsloader.ports.machine import LogPort

NOWHERE = ("", "")


@contextmanager
def passed_on(logs: LogPort, service: ServiceName, directory: str) -> Iterator[tuple[str, str]]:
    """FIFOs for both streams that somebody else reads, without us; empty names where nobody does.

    The shim opens them while it creates the task; after that nobody needs their names. Raises
    OSError.
    """
    with ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory(prefix="streams.", dir=directory))
        paths = f"{place}/output", f"{place}/errors"
        readers = [_open(stack, path) for path in paths]
        yield paths if logs.pass_on(service, *readers) else NOWHERE


def _open(stack: ExitStack, path: str) -> int:
    """Its reading end; until the shim has opened it we are a writer, or there would be an end."""
    os.mkfifo(path, 0o600)
    stack.callback(os.close, os.open(path, os.O_RDWR | os.O_CLOEXEC))
    reader = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, reader)
    return reader
