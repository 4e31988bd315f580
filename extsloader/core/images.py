"""Which image is active, and what its reports and orders do; `core.lifecycle` has the moves."""

from dataclasses import replace

from extsloader.core import backoff, candidates, memory, rollout
from extsloader.core.integrity import uses_verity
from extsloader.core.lifecycle import AT_REST, LEADS_TO, Fact, Order, next_phase, order_for
from extsloader.core.step import Step, leave, note, put
from extsloader.model.effects import (
    CancelTimer,
    CheckImage,
    DropImage,
    Effect,
    MountImage,
    SetTimer,
    UnmountImage,
)
from extsloader.model.errors import IllegalTransitionError
from extsloader.model.events import TimerId, TimerKind
from extsloader.model.ids import Digest, SourceId, short
from extsloader.model.machine import Moment
from extsloader.model.manifest import Service, StoredImage
from extsloader.model.measurement import Measuring
from extsloader.model.reasons import Code, Problem
from extsloader.model.world import Image, ImagePhase, ServicePhase, ServiceState, World

CHOOSE = TimerId(TimerKind.CHOOSE)
CHECK = TimerId(TimerKind.IMAGE)
CHECK_PERIOD = 60.0
"""Seconds; the end of a service is a reason to look at once."""

FAILED = 8
"""So many images that were left for another one are kept in mind, the oldest dropped first."""


def add(world: World, source: SourceId, stored: StoredImage) -> Step:
    """A verified image; its bytes may be known already from another place.

    Two manifests may sign the same bytes: the higher sequence counts, until they are in use.
    """
    known = world.images.get(stored.digest)
    if known and not _supersedes(stored, known):
        return Step(world)
    return Step(_put(world, Image(stored=stored, source=source)))


def _supersedes(stored: StoredImage, known: Image) -> bool:
    in_use = known.phase is not ImagePhase.STORED
    return not in_use and stored.manifest.sequence > known.stored.manifest.sequence


def take_mounted(world: World, digest: Digest, found: tuple[Service, ...] = ()) -> Step:
    """The image is mounted; what dm-verity knows of one that was adopted is older than we are.

    `found` are its services, where the manifest does not name them.
    """
    image = replace(_advance(world, digest, Fact.MOUNTED), problem=None, failures=0)
    if found:
        manifest = replace(image.stored.manifest, services=found)
        image = replace(image, stored=replace(image.stored, manifest=manifest))
    return check(_put(world, image))


def take_failed(world: World, digest: Digest, problem: Problem, moment: Moment) -> Step:
    """The image cannot be mounted now: another one gets its chance, or this one after a pause.

    What stood in its way (a full kernel, a rival mount) may be gone by then.
    """
    image = _advance(world, digest, Fact.FAILED)
    broken = replace(image, problem=problem, failures=image.failures + 1)
    timeouts = world.settings.timeouts
    pause = backoff.retry(timeouts, failures=broken.failures, dice=moment.dice)
    timer = SetTimer(TimerId(TimerKind.MOUNT, digest), pause)
    return Step(replace(_put(world, broken), active=None), () if world.stopping else (timer,))


def end_pause(world: World, digest: Digest) -> Step:
    """An image that could not be mounted may be chosen again."""
    image = world.images.get(digest)
    if image is None or image.phase is not ImagePhase.BROKEN or world.stopping:
        return Step(world)
    return Step(_put(world, _advance(world, digest, Fact.PAUSED)))


def take_unmounted(world: World, digest: Digest, problem: Problem | None) -> Step:
    """The image is out of the mount table, or stays there for a reason."""
    stored = replace(_advance(world, digest, Fact.UNMOUNTED), problem=problem, failed=False)
    images = put(world.images, digest, stored)
    if stored.damage:  # its order to unmount has dropped it
        del images[digest]
    return Step(replace(leave(world, digest, problem), images=images, services={}, active=None))


def check(world: World) -> Step:
    """Ask dm-verity, where it is used, whether it has met a bad block in the active image."""
    image = world.images.get(world.active) if world.active else None
    if image is None or image.phase is not ImagePhase.MOUNTED or image.checking or image.damage:
        return Step(world)
    if world.stopping or not uses_verity(world.settings, world.machine):
        return Step(world)
    asked = _put(world, replace(image, checking=True))
    return Step(asked, (CheckImage(image.stored.digest),))


def take_checked(world: World, digest: Digest, problem: Problem | None) -> Step:
    """Damage is told and kept in mind; the services run on as long as they can."""
    image = world.images.get(digest)
    if image is None or not image.checking:
        raise IllegalTransitionError(f"an image that nobody asked about was checked: {digest}")
    damage = problem if problem and problem.code is Code.VERITY else None
    world = _put(world, replace(image, checking=False, damage=damage))
    if damage or world.stopping:
        return Step(world)
    return Step(note(world, problem) if problem else world, (SetTimer(CHECK, CHECK_PERIOD),))


def choose(world: World) -> Step:
    """Activate the best image when there is none yet; wait a little for other verdicts."""
    best = _best(world)
    off = world.stopping or not rollout.is_on(world.settings)
    if world.active is not None or off or best is None:
        return Step(world)
    if candidates.is_undecided(world) and not world.overdue:
        return _wait(world)
    chosen = replace(world, active=best.stored.digest, choosing=False, overdue=False)
    return Step(chosen, (CancelTimer(CHOOSE),) if world.choosing else ())


def may_be_left(world: World) -> bool:
    """Whether the active image has not run well yet, and there is one that did not fail."""
    image = world.images.get(world.active) if world.active else None
    if image is None or image.failed or image.phase is not ImagePhase.MOUNTED:
        return False
    if world.stopping or memory.is_reached(world):
        return False
    other = _best(world)
    return other is not None and other.stored.digest not in world.history.failed


def give_up(world: World, lost: ServiceState) -> Step:
    """Take another image, and the active one only where there is no other, until it changes."""
    image = world.images[world.active] if world.active else None
    if image is None:
        raise IllegalTransitionError("there is no image that could be left")
    digest = image.stored.digest
    problem = Problem(
        lost.problem.code if lost.problem else Code.DEPENDENCY,
        f"cannot keep image {short(digest)}, sequence {image.stored.manifest.sequence}: "
        f"{lost.spec.name} gave up before it had run well, and another image is there",
        "extsloaderctl rescan lets it be tried again at the agent's next start",
    )
    failed = (*(d for d in world.history.failed if d != digest), digest)[-FAILED:]
    marked = replace(world, history=replace(world.history, failed=failed))
    return Step(note(_put(marked, replace(image, failed=True)), problem))


def end_waiting(world: World) -> Step:
    """The other candidates took too long: whatever is there will do."""
    return Step(replace(world, overdue=True)) if world.choosing else Step(world)


def move(world: World) -> Step:
    """Give the orders that are due."""
    step = Step(world)
    for digest, image in world.images.items():
        order = order_for(image.phase, wanted=is_wanted(world, digest))
        if order is Order.MOUNT:
            verity = uses_verity(world.settings, world.machine)
            step = step.then(_begin, image, order, MountImage(image.stored, verity))
        elif order is Order.UNMOUNT and not _is_asked_about(image) and _is_free(world):
            # A helper may be about to vouch for the same digest: the next boot looks at the file.
            drop = image.damage is not None and not candidates.is_verifying(world)
            step = step.then(_begin, image, order, UnmountImage(digest, drop))
    return step


def is_wanted(world: World, digest: Digest | None) -> bool:
    """The active image, unless it failed, is revoked, or the agent stops or is switched off."""
    active = digest is not None and digest == world.active
    image = world.images.get(digest) if active and digest else None
    usable = image is not None and not image.failed and digest not in world.bounds.revoked
    return usable and not world.stopping and rollout.is_on(world.settings)


def is_in_use(world: World) -> bool:
    """Whether services may run from the active image.

    One that is being unmounted is lost, even if it is wanted again meanwhile.
    """
    image = world.images.get(world.active) if world.active else None
    mounted = image is not None and image.phase is ImagePhase.MOUNTED
    return mounted and is_wanted(world, world.active)


def _begin(world: World, image: Image, order: Order, effect: Effect) -> Step:
    return Step(_put(world, replace(image, phase=LEADS_TO[order])), (effect,))


def _wait(world: World) -> Step:
    if world.choosing:
        return Step(world)
    timer = SetTimer(CHOOSE, world.settings.timeouts.choose)
    return Step(replace(world, choosing=True), (timer,))


def _best(world: World) -> Image | None:
    """The pinned one, then the highest sequence, then the first one (dicts keep their order).

    One that was left for another one comes last, whatever its sequence; in safe mode the last one
    that is known to have run well goes before all others.
    """

    def worth(image: Image) -> tuple[bool, bool, bool, int]:
        stored = image.stored
        good = world.safe and stored.digest == world.history.good
        new = stored.digest not in world.history.failed
        return good, new, stored.pinned, stored.manifest.sequence

    stored = [i for i in world.images.values() if i.phase is ImagePhase.STORED]
    usable = [image for image in stored if not memory.is_outdated(world, image.stored)]
    return max(usable, key=worth, default=None)


def drop_surplus(world: World) -> Step:
    """Keep the store small: the active image, and the best of the rest that may still be used.

    Not while a helper verifies: what it is about to vouch for may be one that would be dropped.
    """
    if candidates.is_verifying(world) or world.choosing:
        return Step(world)
    at_rest = [image for image in world.images.values() if image.phase in AT_REST]
    way_back = {floor.digest for floor in memory.floors(world)}
    at_rest.sort(key=lambda image: (image.stored.digest in way_back, *_worth(image)), reverse=True)
    room = world.settings.limits.store_images - (len(world.images) - len(at_rest))
    outdated = [image for image in at_rest if memory.is_outdated(world, image.stored)]
    surplus = {i.stored.digest for i in (*at_rest[max(0, room) :], *outdated)} - {world.active}
    if not surplus:
        return Step(world)
    kept = {digest: image for digest, image in world.images.items() if digest not in surplus}
    return Step(replace(world, images=kept), tuple(DropImage(d) for d in sorted(surplus)))


def _worth(image: Image) -> tuple[bool, bool, int]:
    """One that could not be mounted is worth less than any other."""
    stored = image.stored
    return image.phase is not ImagePhase.BROKEN, stored.pinned, stored.manifest.sequence


def _is_asked_about(image: Image) -> bool:
    return image.checking or image.measuring is Measuring.ASKED


def _is_free(world: World) -> bool:
    return all(s.phase is ServicePhase.IDLE for s in world.services.values())


def _advance(world: World, digest: Digest, fact: Fact) -> Image:
    image = world.images.get(digest)
    if image is None:
        raise IllegalTransitionError(f"an image that is not known cannot be {fact}: {digest}")
    return replace(image, phase=next_phase(image.phase, fact))


def _put(world: World, image: Image) -> World:
    return replace(world, images=put(world.images, image.stored.digest, image))
