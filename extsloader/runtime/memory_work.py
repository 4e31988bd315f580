"""Keeps what the core remembers, in files and where there is one in the TPM."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass

import msgspec

from extsloader.core import floor
from extsloader.model.errors import MachineError
from extsloader.model.machine import is_time
from extsloader.model.reasons import Problem
from extsloader.model.trust import Memory
from extsloader.ports.machine import Ports
from extsloader.ports.state import StatePort
from extsloader.runtime.threads import Worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Recollection:
    """What was found at the start."""

    memory: Memory
    clock: float
    stale: bool  # copies are missing or differ: write them anew
    sealed: bool  # the TPM answered
    problems: tuple[Problem, ...] = ()


class MemoryWork:
    """One write after the other: the last one ordered is the last one done."""

    def __init__(self, ports: Ports, threads: Worker) -> None:
        self._copies = _copies(ports)
        self._clock = ports.clock
        self._threads = threads
        self._turn = asyncio.Lock()

    async def save(self, memory: Memory) -> None:
        """Write all copies, whatever happens to one of them. Raises MachineError for the first."""
        payload = msgspec.json.encode(memory)
        async with self._turn:
            errors = [await _attempt(self._threads.run(c.write, payload)) for c in self._copies]
        for error in filter(None, errors):
            raise error

    async def save_clock(self, clock: float) -> None:
        """Raises MachineError."""
        async with self._turn:
            await self._threads.run(self._clock.write, msgspec.json.encode(clock))


def recall(ports: Ports) -> Recollection:
    """Read everything; raises nothing. It blocks."""
    found = [copy.read() for copy in _copies(ports)]
    time = ports.clock.read()
    values = [loaded.value for loaded in found if loaded.value is not None]
    lost = not values and any(loaded.lost for loaded in found)
    memory = Memory(lost=True) if lost else floor.join(values)
    return Recollection(
        memory=memory,
        clock=time.value or 0.0,
        stale=lost or (bool(values) and any(loaded.value != memory for loaded in found)),
        sealed=ports.seal is not None and not found[-1].problems,
        problems=tuple(p for loaded in (*found, time) for p in loaded.problems),
    )


def decode_memory(payload: bytes) -> Memory:
    """Raises ValueError."""
    memory = msgspec.json.decode(payload, type=Memory)
    numbers = [release.sequence for release in (*memory.floors, *memory.accepted)]
    if min(*numbers, memory.key_epoch, 0) < 0:
        raise ValueError("numbers from 0 on expected")
    return memory


def decode_clock(payload: bytes) -> float:
    """Raises ValueError."""
    seconds = msgspec.json.decode(payload, type=float)
    if not is_time(seconds):
        raise ValueError("seconds since 1970 expected")
    return seconds


def _copies(ports: Ports) -> tuple[StatePort[Memory], ...]:
    return (*ports.memory, ports.seal) if ports.seal else ports.memory


async def _attempt(work: Awaitable[None]) -> MachineError | None:
    try:
        await work
    except MachineError as error:
        return error
    return None
