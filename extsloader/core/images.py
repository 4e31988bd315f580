"""Which image is active, and its way into and out of the mount table.

    phase        | wanted                 | not wanted
    -------------+------------------------+------------------------------------
    stored       | MountImage -> mounting | nothing
    mounting     | wait for the report    | wait for the report
    mounted      | nothing                | UnmountImage once no service is left
    unmounting   | wait for the report    | wait for the report
    broken       | nothing                | nothing

An image is wanted while it is the active one and the agent is not stopping. At most one order is
in flight for an image, so an unmount can never overtake a mount.
"""

from dataclasses import replace

from extsloader.core import candidates
from extsloader.core.step import Step, leave, put
from extsloader.model.effects import (
    CancelTimer,
    DropImage,
    Effect,
    MountImage,
    SetTimer,
    UnmountImage,
)
from extsloader.model.errors import IllegalTransitionError
from extsloader.model.events import TimerId, TimerKind
from extsloader.model.ids import Digest, SourceId
from extsloader.model.manifest import StoredImage
from extsloader.model.reasons import Problem
from extsloader.model.world import Image, ImagePhase, ServicePhase, World

CHOOSE = TimerId(TimerKind.CHOOSE)


def add(world: World, source: SourceId, stored: StoredImage) -> Step:
    """A verified image; one with this digest may be known already from another place."""
    if stored.digest in world.images:
        return Step(world)
    image = Image(stored=stored, source=source)
    return _drop_surplus(_put(world, image), stored.digest)


def take_mounted(world: World, digest: Digest, mountpoint: str) -> Step:
    """The image is mounted."""
    image = _in_phase(world, digest, ImagePhase.MOUNTING)
    return Step(_put(world, replace(image, phase=ImagePhase.MOUNTED, mountpoint=mountpoint)))


def take_failed(world: World, digest: Digest, problem: Problem) -> Step:
    """The image cannot be mounted: another one may get its chance."""
    image = _in_phase(world, digest, ImagePhase.MOUNTING)
    broken = _put(world, replace(image, phase=ImagePhase.BROKEN, problem=problem))
    return Step(replace(broken, active=None))


def take_unmounted(world: World, digest: Digest, problem: Problem | None) -> Step:
    """The image is out of the mount table, or stays there for a reason."""
    image = _in_phase(world, digest, ImagePhase.UNMOUNTING)
    stored = replace(image, phase=ImagePhase.STORED, mountpoint="", problem=problem)
    return Step(replace(leave(_put(world, stored), problem), services={}))


def choose(world: World) -> Step:
    """Activate the best image when there is none yet; wait a little for other verdicts."""
    best = _best(world)
    if world.active is not None or world.stopping or best is None:
        return Step(world)
    if candidates.is_undecided(world) and not world.overdue:
        return _wait(world)
    chosen = replace(world, active=best.stored.digest, choosing=False, overdue=False)
    return Step(chosen, (CancelTimer(CHOOSE),) if world.choosing else ())


def end_waiting(world: World) -> Step:
    """The other candidates took too long: whatever is there will do."""
    return Step(replace(world, overdue=True)) if world.choosing else Step(world)


def move(world: World) -> Step:
    """Give the order that the table above names, if any."""
    step = Step(world)
    for digest, image in world.images.items():
        wanted = is_wanted(world, digest)
        match image.phase, wanted:
            case ImagePhase.STORED, True:
                step = _order(step, image, ImagePhase.MOUNTING, MountImage(image.stored))
            case ImagePhase.MOUNTED, False if _is_free(world):
                step = _order(step, image, ImagePhase.UNMOUNTING, UnmountImage(digest))
            case _:
                pass
    return step


def is_wanted(world: World, digest: Digest | None) -> bool:
    """The active image, unless the agent stops."""
    return digest is not None and digest == world.active and not world.stopping


def _order(step: Step, image: Image, phase: ImagePhase, effect: Effect) -> Step:
    return Step(_put(step.world, replace(image, phase=phase)), (*step.effects, effect))


def _wait(world: World) -> Step:
    if world.choosing:
        return Step(world)
    timer = SetTimer(CHOOSE, world.settings.timeouts.choose)
    return Step(replace(world, choosing=True), (timer,))


def _best(world: World) -> Image | None:
    """The highest sequence; of equals the first that was verified (dicts keep their order)."""
    usable = [i for i in world.images.values() if i.phase is ImagePhase.STORED]
    return max(usable, key=lambda image: image.stored.manifest.sequence, default=None)


def _drop_surplus(world: World, newest: Digest) -> Step:
    """Keep the store small: the active image, the one just added, and the best of the rest."""
    idle = [
        image
        for digest, image in world.images.items()
        if digest not in (world.active, newest) and image.phase is ImagePhase.STORED
    ]
    idle.sort(key=lambda image: image.stored.manifest.sequence, reverse=True)
    used = len(world.images) - len(idle)
    surplus = {i.stored.digest for i in idle[max(0, world.settings.limits.store_images - used) :]}
    kept = {digest: image for digest, image in world.images.items() if digest not in surplus}
    return Step(replace(world, images=kept), tuple(DropImage(d) for d in sorted(surplus)))


def _is_free(world: World) -> bool:
    return all(s.phase is ServicePhase.IDLE for s in world.services.values())


def _in_phase(world: World, digest: Digest, phase: ImagePhase) -> Image:
    image = world.images.get(digest)
    if image is None or image.phase is not phase:
        found = image.phase if image else "unknown"
        raise IllegalTransitionError(f"image {digest} is {found}, a report expects {phase}")
    return image


def _put(world: World, image: Image) -> World:
    return replace(world, images=put(world.images, image.stored.digest, image))
