"""Pillar's configuration: what of it is for us, read so that nothing in it can stop the agent.

Its home is `ConfigItemValueMap` of zedagent: settings of the device, and settings of each agent.
A missing key, a wrong type or broken JSON means our default.
"""

import json
from collections.abc import Mapping
from typing import Any

from extsloader.model.ids import ServiceName
from extsloader.model.pillar import AGENT, PillarConfig

KEY = "global"
BOOL, STRING = 2, 3  # ItemType
LEVELS = frozenset(
    "panic fatal error warning warn info debug trace none all".split()  # noqa: SIM905 - words
)
CONTROLLED = {"memory-monitor.enabled": ServiceName("memory-monitor")}
"""Settings of the device that pause a service."""

DEFAULT_LEVEL = "info"


def read(items: Mapping[str, bytes], overrides: Mapping[str, str]) -> PillarConfig:
    """What holds by these items of zedagent, and these files, which are stronger."""
    odd: list[str] = []
    tree = _decode(items.get(KEY, b"{}"), odd)
    device = _table(tree, "GlobalSettings")
    ours = _table(_table(tree, "AgentSettings"), AGENT)
    level = (
        _value(ours, "debug.loglevel", STRING, odd)
        or _value(device, "debug.default.loglevel", STRING, odd)
        or DEFAULT_LEVEL
    )
    if level not in LEVELS:
        odd.append(f"no log level: {level[:40]!a}")
        level = DEFAULT_LEVEL
    held = {
        service: f"Pillar's setting {key} is false"
        for key, service in CONTROLLED.items()
        if _value(device, key, BOOL, odd) is False
    }
    return PillarConfig(log_level=level, held=_override(held, overrides, odd), odd=tuple(odd))


def _override(
    held: dict[ServiceName, str], overrides: Mapping[str, str], odd: list[str]
) -> dict[ServiceName, str]:
    """`eve ext-start` and `eve ext-stop` write these files."""
    found = dict(held)
    for name, word in sorted(overrides.items()):
        service = ServiceName(name)
        if word == "disabled":
            found[service] = f"the override file of {name} says disabled"
        elif word == "enabled":
            found.pop(service, None)
        else:
            odd.append(f'the override file of {name} says neither "enabled" nor "disabled"')
    return found


def _decode(raw: bytes, odd: list[str]) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        odd.append("ConfigItemValueMap is no JSON")
        return {}
    if isinstance(found, dict):
        return found
    odd.append("ConfigItemValueMap is no object")
    return {}


def _table(tree: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = tree.get(key)
    return found if isinstance(found, dict) else {}


def _value(table: Mapping[str, Any], key: str, kind: int, odd: list[str]) -> Any:
    """Only the field of the item's own type counts; None where there is none."""
    item = table.get(key)
    if item is None:
        return None
    field, python = {BOOL: ("BoolValue", bool), STRING: ("StrValue", str)}[kind]
    if not isinstance(item, dict) or item.get("ItemType") != kind:
        odd.append(f"{key} has another type than {field}")
        return None
    value = item.get(field)
    return value if isinstance(value, python) else None
