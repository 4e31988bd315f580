"""When the active image is measured: once it is mounted, before its first service starts."""

from dataclasses import replace

from extsloader.core import images
from extsloader.core.step import Step, put
from extsloader.model.effects import MeasureImage
from extsloader.model.errors import IllegalTransitionError
from extsloader.model.ids import Digest
from extsloader.model.measurement import Measuring
from extsloader.model.reasons import Problem
from extsloader.model.world import Image, World


def settle(world: World) -> Step:
    """Ask for it once: a late success would change a value that was told to be final."""
    image = world.images.get(world.active) if world.active else None
    due = world.measures and image is not None and image.measuring is Measuring.NEVER
    if image is None or not due or not images.is_in_use(world):
        return Step(world)
    asked = _put(world, replace(image, measuring=Measuring.ASKED))
    return Step(asked, (MeasureImage(image.stored.digest),))


def take(world: World, digest: Digest, problem: Problem | None) -> Step:
    """It is measured, or cannot be: services start in any case."""
    image = world.images.get(digest)
    if image is None or image.measuring is not Measuring.ASKED:
        raise IllegalTransitionError(f"an image that nobody asked about was measured: {digest}")
    result = Measuring.FAILED if problem else Measuring.DONE
    return Step(_put(world, replace(image, measuring=result, unmeasured=problem)))


def is_due(world: World) -> bool:
    """Whether starts have to wait for it."""
    image = world.images.get(world.active) if world.active else None
    waits = image is not None and image.measuring in (Measuring.NEVER, Measuring.ASKED)
    return world.measures and waits


def _put(world: World, image: Image) -> World:
    return replace(world, images=put(world.images, image.stored.digest, image))
