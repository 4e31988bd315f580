"""What the status socket and other reporters read; they never change anything."""

from typing import Protocol

from extsloader.model.ids import ServiceName
from extsloader.model.status import Change, Explanation, StatusSnapshot


class StatusPort(Protocol):
    """The one truth, computed from the loop's newest world."""

    def snapshot(self) -> StatusSnapshot:
        """The newest snapshot, with usage and the agent's memory read now."""

    async def wait_beyond(self, generation: int) -> StatusSnapshot:
        """The next snapshot whose generation is higher than the given one, without usage."""

    def explain(self, service: ServiceName) -> Explanation | None:
        """Why the service is as it is; None for an unknown name."""

    def changes_since(self, change: int) -> tuple[Change, ...]:
        """Remembered changes with a higher id, oldest first."""

    async def wait_change(self, change: int) -> tuple[Change, ...]:
        """The same, waiting until there is at least one."""
