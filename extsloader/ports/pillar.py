"""What the agent needs to live among EVE's own agents."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from extsloader.model.pillar import Item


class PublisherPort(Protocol):
    """One topic of ours. Nothing of it waits for a subscriber."""

    def open(self, items: Mapping[str, Item]) -> None:
        """Begin with these items. Raises MachineError: E_BUSY beside a living publisher."""

    def publish(self, key: str, item: Item) -> None:
        """Tell a change. Raises MachineError when only its file could not be written."""

    def signal_restarted(self) -> None:
        """All that is to be told after a start has been. Raises MachineError as `publish`."""

    def close(self) -> None:
        """Tell nothing any more."""


class SubscriberPort(Protocol):
    """One topic of another agent, which may come, go and misbehave as it likes."""

    def start(
        self, on_items: Callable[[Mapping[str, bytes]], None], on_odd: Callable[[str], None]
    ) -> None:
        """Begin to hear: all items after each change, and what makes no sense."""

    def close(self) -> None:
        """Hear nothing any more."""


class AgentFilesPort(Protocol):
    """The files by which Pillar knows an agent. All are in memory: no call blocks."""

    def claim(self) -> None:
        """Write the pid file. Raises MachineError: E_BUSY while another agent of the name lives."""

    def register(self) -> None:
        """Let the watchdog look after this process. Raises MachineError."""

    def touch(self) -> None:
        """Say that there is progress; to be called every minute at least. Raises MachineError."""

    def release(self) -> None:
        """Take leave of the watchdog, then take the files away. Raises nothing."""

    def read_slot(self) -> str:
        """The partition of the running core, "" where nobody says."""

    def read_overrides(self) -> Mapping[str, str]:
        """What the override file of each service says. Raises nothing."""

    def write_state(self, content: bytes) -> None:
        """Replace the state file for tools. Raises MachineError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PillarPorts:
    """All of it."""

    publisher: PublisherPort
    subscriber: SubscriberPort
    files: AgentFilesPort
