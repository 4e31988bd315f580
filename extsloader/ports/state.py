"""Small files in which the agent remembers things across restarts and power cuts."""

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from extsloader.model.reasons import Problem

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded(Generic[T_co]):
    """What could be read, and what could not."""

    value: T_co | None  # None: never written, or (with problems) all of it is lost
    problems: tuple[Problem, ...] = ()  # a value beside them is of the generation before

    @property
    def lost(self) -> bool:
        """Whether something was there and nothing of it can be used: take safe defaults."""
        return self.value is None and bool(self.problems)


class StatePort(Protocol[T_co]):
    """One file. Both calls block: not for the loop's thread, and one call at a time."""

    def read(self) -> Loaded[T_co]:
        """The newest generation that can be used; raises nothing."""

    def write(self, payload: bytes) -> None:
        """Make it the newest generation, durably. Raises MachineError(E_STATE): it is not."""
