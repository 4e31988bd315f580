"""Anti-rollback: which sequences of a channel are accepted, and what is remembered of images.

The floor of a channel is the highest sequence that has run well (Android Verified Boot, "rollback
index"; The Update Framework, 5.3.5). Only a newer key set lowers it, and only where the core image
names the channel: a routine rotation of keys must not let old images in again.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from extsloader.model.ids import Digest
from extsloader.model.manifest import Manifest
from extsloader.model.reasons import Code, Problem
from extsloader.model.trust import Memory, Release

MAX_STEP = 1 << 20
"""One image may raise a floor by so much: a stolen key cannot shut the channel with one signature
(The Update Framework, "fast-forward attack")."""

MAX_SEQUENCE = (1 << 53) - 1
"""The highest that a manifest can have (RFC 7493, 2.2)."""


def refuse(
    manifest: Manifest,
    floors: Sequence[Release],
    accepted: Sequence[Release],
) -> Problem | None:
    """Why the sequence of this manifest cannot be accepted; None when it can be."""
    floor = _find(floors, manifest.name)
    if floor and manifest.sequence < floor.sequence:
        return _rollback(
            manifest,
            f"{floor.sequence} or later expected, as {floor.sequence} is this device's floor",
            "use a newer image",
        )
    if floor and manifest.sequence > floor.sequence + MAX_STEP:
        return _rollback(
            manifest,
            f"at most {floor.sequence + MAX_STEP} expected, a jump of {MAX_STEP} from the floor",
            "sign the image with a sequence that follows the one before",
        )
    for known in (floor, _find(accepted, manifest.name)):
        if known and _is_twin(manifest, known):
            return _equivocation(manifest, known)
    return None


def refuse_revoked(digest: Digest, revoked: Collection[str]) -> Problem | None:
    """Why an image is refused by its digest, whoever has signed it and whatever its sequence."""
    if digest not in revoked:
        return None
    return Problem(
        Code.REVOKED,
        f"cannot accept image {digest}: policy.json beside the device's keys has revoked it",
        "use another image",
    )


def hold(memory: Memory, baked: Sequence[Release], epoch: int) -> Memory:
    """What holds under a key set of this epoch, the floors of the core image included."""
    if epoch > memory.key_epoch:
        named = {release.name for release in baked}
        memory = replace(
            memory,
            floors=tuple(r for r in memory.floors if r.name not in named),
            accepted=tuple(r for r in memory.accepted if r.name not in named),
            key_epoch=epoch,
        )
    return replace(memory, floors=_highest((*memory.floors, *baked)))


def accept(memory: Memory, manifest: Manifest) -> Memory:
    """Remember an accepted image: no other one may have its sequence from now on."""
    return replace(memory, accepted=_highest((*memory.accepted, release_of(manifest))))


def reach(memory: Memory, manifest: Manifest) -> Memory:
    """The image has run well: nothing older is accepted from now on."""
    return replace(memory, floors=_highest((*memory.floors, release_of(manifest))), lost=False)


def is_reached(memory: Memory, manifest: Manifest) -> bool:
    """Whether running well would teach us nothing new."""
    return reach(memory, manifest) == memory


def join(copies: Iterable[Memory]) -> Memory:
    """Of several copies the highest counts; copies from before a change of keys do not."""
    found = tuple(copies)
    epoch = max((copy.key_epoch for copy in found), default=0)
    newest = [copy for copy in found if copy.key_epoch == epoch]
    return Memory(
        floors=_highest(release for copy in newest for release in copy.floors),
        accepted=_highest(release for copy in newest for release in copy.accepted),
        key_epoch=epoch,
        lost=bool(newest) and all(copy.lost for copy in newest),
    )


def is_implausible(memory: Memory) -> bool:
    """Whether a floor is so high that no image can follow it: somebody has written it there."""
    return any(floor.sequence > MAX_SEQUENCE - MAX_STEP for floor in memory.floors)


def release_of(manifest: Manifest) -> Release:
    """What is remembered of a manifest."""
    return Release(name=manifest.name, sequence=manifest.sequence, digest=manifest.image.digest)


def _find(releases: Sequence[Release], name: str) -> Release | None:
    return next((release for release in releases if release.name == name), None)


def _is_twin(manifest: Manifest, known: Release) -> bool:
    differs = known.digest not in ("", manifest.image.digest)
    return manifest.sequence == known.sequence and differs


def _highest(releases: Iterable[Release]) -> tuple[Release, ...]:
    """One of each channel; of equals the first one that says which image it is."""
    found: dict[str, Release] = {}
    for release in releases:
        known = found.get(release.name)
        if known is None or _rank(release) > _rank(known):
            found[release.name] = release
    return tuple(sorted(found.values(), key=lambda release: release.name))


def _rank(release: Release) -> tuple[int, bool]:
    return release.sequence, bool(release.digest)


def _rollback(manifest: Manifest, expected: str, hint: str) -> Problem:
    message = f"cannot accept sequence {manifest.sequence} of {manifest.name}: {expected}"
    return Problem(Code.ROLLBACK, message, hint)


def _equivocation(manifest: Manifest, known: Release) -> Problem:
    return Problem(
        Code.EQUIVOCATION,
        f"cannot accept sequence {manifest.sequence} of {manifest.name}: image {known.digest} "
        f"expected, as it was the first with this sequence, {manifest.image.digest} got",
        "find out who signed two images with one sequence, then sign the right one with the next",
    )
