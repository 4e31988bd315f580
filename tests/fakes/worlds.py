"""Worlds at well-known points of a life, each made by the events that lead there."""

from dataclasses import replace
from typing import Any

from extsloader.core import engine, memory
from extsloader.core.step import Step
from extsloader.model import effects as fx
from extsloader.model import events as ev
from extsloader.model.events import Event, TimerKind
from extsloader.model.ids import ServiceName
from extsloader.model.manifest import ProbeKind, Readiness, Service, StoredImage
from extsloader.model.plan import Bundle
from extsloader.model.world import ServicePhase, ServiceState, World
from tests.fakes import builders
from tests.fakes.machine import CONFIG

BY_TCP = Readiness(kind=ProbeKind.TCP, port=1, timeout=30)
BY_NOTIFY = Readiness(kind=ProbeKind.NOTIFY, timeout=30)


def tell(world: World, *events: Event, now: float = 0.0, dice: float = 0.0) -> Step:
    """All events in order, and the orders that they lead to.

    Without the lines for the journal and the writing of the history, which follow any change, and
    without the look at everything that comes by itself.
    """
    step = Step(world)
    for event in events:
        step = step.then(engine.step, event, builders.moment(now, dice))
    return Step(step.world, tuple(e for e in step.effects if not _is_for_the_record(e)))


def _is_for_the_record(effect: fx.Effect) -> bool:
    is_timer = isinstance(effect, fx.SetTimer) and effect.timer.kind in (
        TimerKind.SAVE,
        TimerKind.RECONCILE,
    )
    return is_timer or isinstance(effect, fx.Record | fx.SaveHistory)


def verified(image: StoredImage, world: World | None = None, path: str = "/dev/sdb") -> World:
    """The image was found on a stick and verified."""
    stick = builders.source(path)
    events = (
        ev.SourceSeen(stick),
        ev.Probed(stick.id, builders.squashfs()),
        ev.Verified(stick.id, image),
    )
    return tell(world or builders.world(), *events).world


def mounted(image: StoredImage, *bad: str, mountpoint: str = "/mnt") -> ev.ImageMounted:
    """The report about an image whose bundles are good but for the named ones, not read."""
    bundles = tuple(
        Bundle(service=service.name, config=CONFIG, runtime="")
        for service in image.manifest.services
        if service.name not in bad
    )
    return ev.ImageMounted(image.digest, mountpoint, bundles)


def running(*services: Service, **phases: ServicePhase) -> World:
    """An image with these services is mounted, and they have come to these phases."""
    image = builders.stored(*services)
    world = tell(verified(image), mounted(image)).world
    states = {
        name: replace(state, phase=phases.get(name, state.phase), run=1)
        for name, state in world.services.items()
    }
    return memory.settle(replace(world, services=states)).world


def change(world: World, name: str, **fields: Any) -> World:
    """The world with other facts about a service."""
    key = ServiceName(name)
    return replace(world, services={**world.services, key: replace(world.services[key], **fields)})


def state(world: World, name: str) -> ServiceState:
    return world.services[ServiceName(name)]


def phases(world: World) -> dict[str, str]:
    return {name: found.phase for name, found in world.services.items()}


def kinds(step: Step) -> list[str]:
    """The orders by their names."""
    return [type(effect).__name__ for effect in step.effects]
