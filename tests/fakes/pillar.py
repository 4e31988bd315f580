"""Pillar as one agent sees it, in memory."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from extsloader.model.errors import MachineError
from extsloader.model.pillar import Item
from extsloader.model.reasons import Code
from extsloader.ports.pillar import PillarPorts


class FakePillar:
    """Publisher, subscriber and files at once; `calls` is what happened, in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.told: list[dict[str, Any]] = []
        self.state: dict[str, str] = {}
        self.touches = 0
        self.overrides: dict[str, str] = {}
        self.rival = False  # another agent of the name lives
        self.full = False  # no file can be written
        self.hear: Callable[[Mapping[str, bytes]], None] = lambda _items: None

    def ports(self) -> PillarPorts:
        return PillarPorts(publisher=_Publisher(self), subscriber=_Subscriber(self), files=self)

    @property
    def states(self) -> list[int]:
        """The states that were told, without repetitions."""
        found: list[int] = []
        for fields in self.told:
            if found[-1:] != [fields["State"]]:
                found.append(fields["State"])
        return found

    def configure(self, **settings: object) -> None:
        """Settings of the device, with a dot for each double underscore."""
        items = {
            key.replace("__", ".").replace("_", "-"): {"ItemType": 2, "BoolValue": value}
            for key, value in settings.items()
        }
        self.hear({"global": json.dumps({"GlobalSettings": items}).encode()})

    def claim(self) -> None:
        self.calls.append("claim")
        if self.rival:
            raise MachineError(Code.BUSY, "start beside another agent", "it lives")

    def register(self) -> None:
        self.calls.append("register")
        self.fail_when_full()

    def touch(self) -> None:
        self.touches += 1
        self.fail_when_full()

    def release(self) -> None:
        self.calls.append("release")

    def read_slot(self) -> str:
        return "IMGA"

    def read_overrides(self) -> Mapping[str, str]:
        return self.overrides

    def write_state(self, content: bytes) -> None:
        self.fail_when_full()
        self.state = json.loads(content)

    def fail_when_full(self) -> None:
        if self.full:
            raise MachineError(Code.STATE, "write it", "no space left on device")


class _Publisher:
    def __init__(self, pillar: FakePillar) -> None:
        self._pillar = pillar

    def open(self, items: Mapping[str, Item]) -> None:
        self._pillar.calls.append("open")
        self.publish("global", items["global"])

    def publish(self, key: str, item: Item) -> None:
        assert key == "global"
        assert json.loads(item.wire) == json.loads(item.file)
        self._pillar.told.append(json.loads(item.wire))
        self._pillar.fail_when_full()

    def signal_restarted(self) -> None:
        self._pillar.calls.append("restarted")

    def close(self) -> None:
        self._pillar.calls.append("close")


class _Subscriber:
    def __init__(self, pillar: FakePillar) -> None:
        self._pillar = pillar

    def start(
        self, on_items: Callable[[Mapping[str, bytes]], None], on_odd: Callable[[str], None]
    ) -> None:
        self._pillar.hear = on_items
        on_odd("nobody is there")

    def close(self) -> None:
        self._pillar.calls.append("deaf")
