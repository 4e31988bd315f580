"""What makes a manifest believable: `accept` has the order, each check below is one refusal.

No input or output but the device's own keys. Models: The Update Framework specification, 5.3, and
DSSE protocol.md. Imported late, because it loads cryptography and schema.
"""

import re
from datetime import UTC, datetime
from hashlib import sha256

from extsloader.core import floor
from extsloader.core.graph import find_cycle
from extsloader.image.envelope import Envelope, parse_envelope
from extsloader.image.schema import parse_manifest
from extsloader.image.signing import signers
from extsloader.model.errors import ImageRefusedError
from extsloader.model.helper import Request
from extsloader.model.machine import Machine
from extsloader.model.manifest import Compatible, Manifest, StoredImage, parse_time
from extsloader.model.reasons import Code, Problem
from extsloader.model.source import SourceKind
from extsloader.model.trust import Memory
from extsloader.verify.keys import KeyRing, load_keys
from extsloader.verify.pinned import wrap

CLOCK_TOLERANCE = 86400.0  # seconds that a signer's clock may be ahead of ours


def accept(raw: bytes, request: Request) -> StoredImage:
    """Judge an envelope: what it vouches for, without a path. Raises ImageRefusedError.

    An image that was accepted before stays accepted when it expires, or when its key retires: a
    device without network must find its services after a reboot.
    """
    ring = load_keys(request.keys)
    stored = request.source.kind is SourceKind.STORED
    payload, key_ids, retired = _check_origin(raw, ring, stored=stored)
    manifest = parse_manifest(payload)
    _raise(floor.refuse_revoked(manifest.image.digest, ring.revoked_images))
    if request.machine is not None:
        check_compatible(manifest.compatible, request.machine)
    if not stored:
        check_epoch(ring.epoch, request.key_epoch_seen)
        check_time(manifest, request.wall, request.clock_floor)
    check_floor(manifest, request, ring.epoch)
    check_graph(manifest)
    return StoredImage(
        manifest=manifest, path="", key_ids=key_ids, key_epoch=ring.epoch, retired=retired
    )


def accept_pinned(manifest: Manifest, request: Request) -> StoredImage:
    """Judge an image that the core image names by its root hash. Raises ImageRefusedError.

    The core image is what it belongs to: device, time and floor are settled by that.
    """
    ring = load_keys(request.keys, needed=False)
    _raise(floor.refuse_revoked(manifest.image.digest, ring.revoked_images))
    return StoredImage(manifest=manifest, path="", key_ids=(), pinned=True)


def check_signatures(
    envelope: Envelope, ring: KeyRing, *, stored: bool = False
) -> tuple[tuple[str, ...], bool]:
    """Ids of the keys that vouch for it, and whether it takes retired ones to be enough.

    Raises E_SIGNATURE for none, E_THRESHOLD for few.
    """
    found = signers(envelope, ring.keys)
    if len(found) >= ring.threshold:
        return found, False
    retired = signers(envelope, ring.retired)
    if stored and len(found) + len(retired) >= ring.threshold:
        return (*found, *retired), True
    gone = {"retired": retired, "revoked": signers(envelope, ring.revoked)}
    former = "".join(
        f", a {what} key signed: {', '.join(ids)}" for what, ids in gone.items() if ids
    )
    if not found:
        claimed = ", ".join(ascii(s.key_id[:12]) for s in envelope.signatures[:4])
        raise ImageRefusedError(
            Code.SIGNATURE,
            f"cannot accept the manifest: none of the {len(ring.keys)} accepted keys signed it, "
            f"it claims {claimed}{former}",
            "sign the image with a key of this device, or bring the device that key",
        )
    raise ImageRefusedError(
        Code.THRESHOLD,
        f"cannot accept the manifest: {ring.threshold} distinct accepted keys expected, "
        f"{len(found)} signed{former}",
        "let the other signers sign as well",
    )


def check_epoch(epoch: int, seen: int) -> None:
    """Are the device's keys older than keys that it had before? Raises E_KEYS.

    An older core image, booted as a fall-back, runs what is stored, and takes nothing new on the
    word of keys that were exchanged for a reason.
    """
    if epoch < seen:
        raise ImageRefusedError(
            Code.KEYS,
            f"cannot use the device's keys: epoch {seen} or later expected, {epoch} got",
            "boot the core image with the newer keys",
        )


def _check_origin(
    raw: bytes, ring: KeyRing, *, stored: bool
) -> tuple[bytes, tuple[str, ...], bool]:
    """The manifest's bytes, who vouches for them, and whether these are retired."""
    if ring.pinned is not None and wrap(ring.pinned) == raw:
        return ring.pinned, (), False
    envelope = parse_envelope(raw)
    return (envelope.payload, *check_signatures(envelope, ring, stored=stored))


def check_compatible(compatible: Compatible, machine: Machine) -> None:
    """Is the image meant for this device? Raises E_INCOMPATIBLE with all that does not fit."""
    reasons = []
    if compatible.arch != machine.arch:
        reasons.append(f"it is for {compatible.arch}, this device is {machine.arch}")
    if machine.hypervisor not in compatible.hypervisors:
        wanted = " or ".join(compatible.hypervisors)
        reasons.append(f"it is for hypervisor {wanted}, this device has {machine.hypervisor}")
    if not _in_range(machine.core_version, compatible.core_min, compatible.core_max):
        wanted = f"{compatible.core_min or 'any'} to {compatible.core_max or 'any'}"
        reasons.append(
            f"it is for core versions {wanted}, this device has {machine.core_version or 'none'}"
        )
    if compatible.device_ids and not _is_listed(machine.device_id, compatible.device_ids):
        reasons.append(
            f"this device ({machine.device_id or 'without an id'}) is not one of the "
            f"{len(compatible.device_ids)} that it is for"
        )
    if reasons:
        raise ImageRefusedError(
            Code.INCOMPATIBLE,
            f"cannot use the image here: {'; '.join(reasons)}",
            "use the image that was built for this kind of device",
        )


def check_time(manifest: Manifest, wall: float, clock_floor: float) -> None:
    """Has the manifest expired? Raises E_EXPIRED, or E_CLOCK when it comes from the future.

    A clock below the floor is wrong (no battery: 1970). It is then at least the floor's time, and
    nothing can be said about the future.
    """
    now = max(wall, clock_floor)
    if manifest.expires and parse_time(manifest.expires) < now:
        raise ImageRefusedError(
            Code.EXPIRED,
            f"cannot accept the manifest: it expired at {manifest.expires}, now is {_utc(now)}",
            "get a newer image, or correct the clock",
        )
    if wall >= clock_floor and parse_time(manifest.issued_at) > now + CLOCK_TOLERANCE:
        raise ImageRefusedError(
            Code.CLOCK,
            f"cannot accept the manifest: it was issued at {manifest.issued_at}, "
            f"now is {_utc(now)}",
            "correct the clock",
        )


def check_floor(manifest: Manifest, request: Request, epoch: int) -> None:
    """Is the sequence one that may come now? Raises E_ROLLBACK or E_EQUIVOCATION.

    An image in the store is no exception: its file may have been put back there.
    """
    memory = Memory(
        floors=request.floors, accepted=request.accepted, key_epoch=request.key_epoch_seen
    )
    held = floor.hold(memory, request.baked, epoch)
    _raise(floor.refuse(manifest, held.floors, held.accepted))


def check_graph(manifest: Manifest) -> None:
    """Do the services depend on each other in a circle? Raises E_DAG with a shortest one."""
    cycle = find_cycle(manifest.services)
    if cycle:
        raise ImageRefusedError(
            Code.DAG,
            f"cannot order the services: {' -> '.join(cycle)} is a cycle",
            "remove one of these dependencies and build the image anew",
        )


def _raise(problem: Problem | None) -> None:
    if problem:
        raise ImageRefusedError(problem.code, problem.message, problem.hint)


def _is_listed(device_id: str, listed: tuple[str, ...]) -> bool:
    """By itself, or by its hash: a manifest need not tell everybody which devices there are."""
    hashed = f"sha256-{sha256(device_id.encode()).hexdigest()}"
    return device_id != "" and (device_id in listed or hashed in listed)


def _in_range(version: str, lowest: str, highest: str) -> bool:
    """Compare numbers, not text (14.10 is after 14.9); a short maximum includes all below it."""
    if not (lowest or highest):
        return True
    leading = re.match(r"[0-9]{1,9}(\.[0-9]{1,9})*", version)
    if not leading:
        return False
    own, low, high = (_numbers(text) for text in (leading[0], lowest, highest))
    return low <= own and (not high or own[: len(high)] <= high)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")) if text else ()


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
