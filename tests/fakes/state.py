"""A state file that is only in memory, with a knob that makes its disk fail."""

from collections.abc import Callable
from typing import Generic, TypeVar

from extsloader.model.errors import MachineError
from extsloader.model.reasons import Code, Problem
from extsloader.ports.state import Loaded

T = TypeVar("T")


class FakeState(Generic[T]):
    def __init__(self, decode: Callable[[bytes], T], content: bytes | None = None) -> None:
        self._decode = decode
        self.content = content
        self.damaged = False
        self.full = False
        self.writes = 0

    def read(self) -> Loaded[T]:
        if self.damaged:
            problem = Problem(Code.STATE, "cannot use the state file: its checksum is wrong")
            return Loaded(value=None, problems=(problem,))
        return Loaded(value=None if self.content is None else self._decode(self.content))

    def write(self, payload: bytes) -> None:
        if self.full:
            raise MachineError(Code.STATE, "write the state file", "no space left on device")
        self.content, self.damaged = payload, False
        self.writes += 1
