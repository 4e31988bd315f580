"""What the agent remembers across restarts, and when: floors, accepted images, and the time."""

from collections.abc import Collection
from dataclasses import replace

from extsloader.core import candidates, floor, health
from extsloader.core.step import Step
from extsloader.core.supervision import SETTLED
from extsloader.model.effects import CancelTimer, DropImage, Effect, SaveClock, SaveMemory, SetTimer
from extsloader.model.events import TimerId, TimerKind
from extsloader.model.ids import ServiceName, SourceId
from extsloader.model.machine import Moment
from extsloader.model.manifest import StoredImage, parse_time
from extsloader.model.reasons import Problem
from extsloader.model.source import SourceKind
from extsloader.model.trust import Flag, Memory, Release
from extsloader.model.world import Image, ImagePhase, World

PROBATION, CLOCK = TimerId(TimerKind.PROBATION), TimerId(TimerKind.CLOCK)
CLOCK_PERIOD = 3600.0
CLOCK_SLIP = 60.0
"""Seconds by which a clock may be corrected within an hour that is still believed."""


def begin(world: World, moment: Moment) -> Step:
    """Mend the copies of the memory, and look at the clock every hour."""
    memory = world.bounds.memory
    mend = (SaveMemory(memory),) if world.stale_memory else ()
    timed = replace(world, stale_memory=False, timed=(moment.now, moment.wall))
    return Step(timed, (*mend, SetTimer(CLOCK, CLOCK_PERIOD)))


def check(world: World, source: SourceId, image: StoredImage, moment: Moment) -> Step | None:
    """Refuse what must not be accepted any more since its helper was asked; None: nothing is.

    Its file stays while another helper verifies: that may be about to vouch for the same bytes.
    """
    problem = _refuse(world, image)
    if problem is None:
        return None
    step = candidates.refuse(world, source, problem, moment)
    kept = (
        image.digest in world.images
        or _is_stored(world, source)
        or candidates.is_verifying(step.world)
    )
    return step if kept else Step(step.world, (*step.effects, DropImage(image.digest)))


def take_verified(world: World, image: StoredImage) -> Step:
    """Remember an accepted image. Its time is signed: a clock that shows less is wrong.

    Of a pinned one there is nothing to remember: the core image is its floor.
    """
    if image.pinned:
        return Step(world)
    bounds = world.bounds
    held = floor.hold(bounds.memory, bounds.baked, image.key_epoch)
    step = _remember(world, floor.accept(held, image.manifest))
    return step.then(_raise_clock, parse_time(image.manifest.issued_at))


def settle(world: World, skipped: Collection[ServiceName] = ()) -> Step:
    """Begin the probation of an image that runs well, and end it when that ends."""
    due = _is_well(world, skipped) and not is_reached(world)
    if due == world.on_probation:
        return Step(world)
    timer = SetTimer(PROBATION, world.settings.timeouts.probation)
    effect: Effect = timer if due else CancelTimer(PROBATION)
    return Step(replace(world, on_probation=due), (effect,))


def end_probation(world: World) -> Step:
    """The active image has run well all the time: nothing older comes back."""
    image = _active(world)
    if not world.on_probation or image is None:
        return Step(world)
    failed = tuple(d for d in world.history.failed if d != image.stored.digest)
    forgiven = replace(world, history=replace(world.history, failed=failed))
    return _remember(forgiven, floor.reach(world.bounds.memory, image.stored.manifest))


def take_hour(world: World, moment: Moment) -> Step:
    """Remember the time, if the clock was not set in the last hour: it may have been set wrong."""
    now, wall = world.timed or (moment.now, moment.wall)
    slip = abs((moment.wall - wall) - (moment.now - now))
    timed = Step(replace(world, timed=(moment.now, moment.wall)), (SetTimer(CLOCK, CLOCK_PERIOD),))
    return timed if slip > CLOCK_SLIP else timed.then(_raise_clock, moment.wall)


def floors(world: World) -> tuple[Release, ...]:
    """What holds now: floors reached, and those of the core image."""
    bounds = world.bounds
    return floor.hold(bounds.memory, bounds.baked, bounds.memory.key_epoch).floors


def find_flags(world: World, moment: Moment) -> tuple[Flag, ...]:
    """What is not as it should be."""
    memory, image = world.bounds.memory, _active(world)
    now = max(moment.wall, world.bounds.clock)
    expires = image.stored.manifest.expires if image else ""
    found = {
        Flag.FLOOR_LOST: memory.lost,
        Flag.FLOOR_IMPLAUSIBLE: floor.is_implausible(memory),
        Flag.FLOOR_OPEN: not world.sealed,
        Flag.CLOCK_UNSURE: moment.wall < world.bounds.clock,
        Flag.STALE: bool(expires) and parse_time(expires) < now,
        Flag.RETIRED_KEY: image is not None and image.stored.retired,
    }
    return tuple(flag for flag, holds in found.items() if holds)


def is_outdated(world: World, image: StoredImage) -> bool:
    """Whether the image would be refused if it came now."""
    return _refuse(world, image) is not None


def _refuse(world: World, image: StoredImage) -> Problem | None:
    bounds = world.bounds
    held = floor.hold(bounds.memory, bounds.baked, image.key_epoch)
    revoked = floor.refuse_revoked(image.digest, bounds.revoked)
    if revoked or image.pinned:
        return revoked
    return floor.refuse(image.manifest, held.floors, held.accepted)


def _remember(world: World, memory: Memory) -> Step:
    if memory == world.bounds.memory:
        return Step(world)
    return Step(replace(world, bounds=replace(world.bounds, memory=memory)), (SaveMemory(memory),))


def _raise_clock(world: World, seconds: float) -> Step:
    if seconds <= world.bounds.clock:
        return Step(world)
    return Step(replace(world, bounds=replace(world.bounds, clock=seconds)), (SaveClock(seconds),))


def _is_well(world: World, skipped: Collection[ServiceName]) -> bool:
    """Whether all essential services are ready, or all services where none is essential."""
    image = _active(world)
    if image is None or image.phase is not ImagePhase.MOUNTED or image.damage or world.stopping:
        return False
    meant = [state for name, state in world.services.items() if name not in skipped]
    watched = [state for state in meant if state.spec.essential] or meant
    return bool(watched) and all(s.phase in SETTLED and not health.is_sick(s) for s in watched)


def is_reached(world: World) -> bool:
    """Whether the active image has run well for its probation, now or earlier."""
    image = _active(world)
    if image is None or image.stored.pinned:
        return image is not None
    return floor.is_reached(world.bounds.memory, image.stored.manifest)


def _active(world: World) -> Image | None:
    return world.images.get(world.active) if world.active else None


def _is_stored(world: World, source: SourceId) -> bool:
    candidate = world.candidates.get(source)
    return candidate is not None and candidate.source.kind is SourceKind.STORED
