"""What the status socket and other reporters need from the loop."""

from typing import Protocol

from extsloader.model.control import Answer, Verb
from extsloader.model.ids import ServiceName
from extsloader.model.status import Change, Explanation, StatusSnapshot
from extsloader.model.timeline import Timeline


class ControlPort(Protocol):
    """Where changes are asked for; who may have them is decided behind it."""

    async def ask(self, verb: Verb, service: str, uid: int) -> Answer:
        """What came of the request of the user with this number; `service` "" where none is meant.

        Returns when it is decided, not when it is done.
        """


class StatusPort(Protocol):
    """The one truth, computed from the loop's newest world. Reading changes nothing."""

    def snapshot(self) -> StatusSnapshot:
        """The newest snapshot, with usage and the agent's memory read now."""

    async def wait_beyond(self, generation: int) -> StatusSnapshot:
        """The next snapshot whose generation is higher than the given one, without usage."""

    def explain(self, service: ServiceName) -> Explanation | None:
        """Why the service is as it is; None for an unknown name."""

    def timeline(self) -> Timeline:
        """What happened from the agent's start until the device was ready, or until now."""

    def changes_since(self, change: int) -> tuple[Change, ...]:
        """Remembered changes with a higher id, oldest first."""

    async def wait_change(self, change: int) -> tuple[Change, ...]:
        """The same, waiting until there is at least one."""
