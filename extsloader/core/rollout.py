"""Which devices and services take part: by configuration, and by an operator's word."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import sha256

from extsloader.core import safe_mode
from extsloader.model.history import Hold
from extsloader.model.ids import ServiceName
from extsloader.model.settings import Rollout, Settings
from extsloader.model.world import World


@dataclass(frozen=True, slots=True)
class HeldBy:
    """What keeps a service from running: the state that is shown, why, and how to change it."""

    state: str
    reason: str
    hint: str


Holds = Mapping[ServiceName, HeldBy]


def is_on(settings: Settings) -> bool:
    """Whether the agent does anything on this device."""
    return not explain_off(settings)


def explain_off(settings: Settings) -> str:
    """Why the agent does nothing here; "" if it does."""
    if not settings.enabled:
        return "switched off by configuration"
    percent = settings.rollout.percent
    if percent == 100:  # noqa: PLR2004 - all of them
        return ""
    if not settings.device_id:
        return f"rolled out to {percent} % of the devices, and this one has no device_id"
    place = find_place(settings)
    if place < percent:
        return ""
    return f"rolled out to the first {percent} % of the devices, and this one is at {place:.1f} %"


def find_place(settings: Settings) -> float:
    """Where this device stands among all, 0 to 100: evenly spread and the same for ever.

    A higher percentage therefore only adds devices.
    """
    text = f"{settings.rollout.salt}\0{settings.device_id}"
    number = int.from_bytes(sha256(text.encode()).digest()[:8], "big")
    return number * 100.0 / 2.0**64


def find_holds(world: World) -> Holds:
    """Every service that is kept from running, whatever its image wants, and by what."""
    rollout, asked = world.settings.rollout, world.history.holds
    pillar = world.held_by_pillar
    if not (asked or rollout.allow or rollout.deny or world.safe or pillar):
        return {}
    found = {
        name: _find_hold(name, asked.get(name), rollout) or _find_pillar(pillar.get(name))
        for name in world.services
    }
    if world.safe:
        optional = HeldBy("excluded", "safe mode: it is not essential", safe_mode.LEAVE)
        found |= {name: found[name] or optional for name in safe_mode.find_optional(world)}
    return {name: hold for name, hold in found.items() if hold}


def _find_hold(name: ServiceName, asked: Hold | None, rollout: Rollout) -> HeldBy | None:
    if asked is Hold.PAUSED:
        return HeldBy("paused", "paused by an operator", f"extsloaderctl resume {name}")
    if asked is Hold.STOPPED:
        return HeldBy("stopped", "stopped by an operator", f"extsloaderctl start {name}")
    if any(fnmatchcase(name, pattern) for pattern in rollout.deny):
        return HeldBy("excluded", "rollout.deny names it", "change rollout.deny and reload")
    if rollout.allow and not any(fnmatchcase(name, pattern) for pattern in rollout.allow):
        return HeldBy(
            "excluded", "rollout.allow does not name it", "change rollout.allow and reload"
        )
    return None


def _find_pillar(reason: str | None) -> HeldBy | None:
    return HeldBy("paused", reason, "change it in EVE's configuration") if reason else None


def find_held(world: World) -> frozenset[ServiceName]:
    """The held services, and those that cannot run without one of them."""
    held: set[ServiceName] = set(find_holds(world))
    for name, state in world.services.items():  # in start order
        if held.intersection(state.spec.requires):
            held.add(name)
    return frozenset(held)
