"""The order of trust, from a medium that is not trusted at all to an image that is kept.

Each step may refuse, and none looks at more bytes than the steps before it have vouched for.
"""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

from extsloader.image.trailer import MAX_ENVELOPE, SIDECAR_SUFFIX, find_end, read_trailer
from extsloader.model.errors import ImageRefusedError
from extsloader.model.helper import Request
from extsloader.model.manifest import ImageSpec, Manifest, StoredImage
from extsloader.model.reasons import Code
from extsloader.model.source import Source, SourceKind
from extsloader.verify.carrier import find_image
from extsloader.verify.identity import FLAGS, refusal
from extsloader.verify.medium import Medium, open_medium
from extsloader.verify.pinned import Pin, find_pinned, read_pin, read_pinned, wrap
from extsloader.verify.store import (
    Pace,
    Progress,
    check_content,
    check_digest,
    hash_all,
    image_name,
    open_store,
)


def verify(request: Request, progress: Progress) -> tuple[StoredImage, int]:
    """Verify a source and keep its image in the store; the caller owns the descriptor of it.

    An image that the store already has is hashed where it lies. Raises ImageRefusedError.
    """
    with open_medium(request.source) as opened:
        medium = find_image(opened, request.files)
        vouched, envelope = _vouch(medium, request, progress)
        image = vouched.manifest.image
        check_size(image, medium.size)
        if request.source.kind is SourceKind.STORED:
            path, descriptor = check_stored(medium, image, progress)
        else:
            path, descriptor = bring_in(medium, vouched.manifest, envelope, request, progress)
    if vouched.pinned:
        _check_pinned(descriptor, image)
    return replace(vouched, path=path), descriptor


def verify_in_place(request: Request, progress: Progress) -> StoredImage:
    """Verify a file as a device would, but keep nothing. Raises ImageRefusedError."""
    with open_medium(request.source) as medium:
        vouched, _ = _vouch(medium, request, progress)
        image = vouched.manifest.image
        check_size(image, request.source.size)
        check_digest(image, hash_all(medium.read_into, image.size, progress))
        check_content(medium.descriptor, image)
        medium.check()
    return vouched


def find_envelope(medium: Medium, keys: str, pin: Pin | None = None) -> bytes:
    """The signed envelope from the trailer, or from the file beside the image, or a pinned one.

    At most the superblock and 64 KiB are read. Raises ImageRefusedError without one: E_ENVELOPE,
    or E_VERITY where the core image names another image by its root hash.
    """
    end = find_end(medium.read)
    trailer = read_trailer(medium.read, end) if end < medium.size else None
    if trailer is not None:
        return trailer.envelope
    sidecar = _read_sidecar(medium.source) if medium.source.kind is SourceKind.FILE else None
    if sidecar is not None:
        return sidecar
    pinned = read_pinned(keys)
    if pinned is None and pin is not None:
        raise ImageRefusedError(
            Code.VERITY,
            f"cannot accept {medium.source.id}: the core image names the image with root hash "
            f"{pin.root_hash} and {pin.size} bytes of data, this is another one and not signed",
            "use the image that was built together with the core image",
        )
    if pinned is None:
        raise ImageRefusedError(
            Code.ENVELOPE,
            f"cannot accept {medium.source.id}: a signed trailer expected at byte {end}, "
            f"nothing got (the medium has {medium.size} bytes)",
            "sign the image with mkext, and write all of it to the medium",
        )
    return wrap(pinned)


def check_size(image: ImageSpec, available: int) -> None:
    """Refuse before any byte is copied what cannot be complete (E_SIZE)."""
    if image.size > available:
        raise ImageRefusedError(
            Code.SIZE,
            f"cannot accept the image: {image.size} bytes are signed, the medium has {available}",
            "write all of the image to the medium",
        )


def bring_in(
    medium: Medium, manifest: Manifest, envelope: bytes, request: Request, progress: Progress
) -> tuple[str, int]:
    """Copy the image into the store unless it is there; path and descriptor of the stored file."""
    image = manifest.image
    with open_store(request.store) as store:
        outranks = partial(_outranks, manifest=manifest, request=request)
        descriptor = store.find(image, envelope, progress, outranks)
        if descriptor is None:
            store.check_room(image, request.reserve)
            pace = Pace(request.min_rate)
            descriptor = store.keep(medium, image, envelope, pace, progress)
    return f"{request.store}/{image_name(image.digest)}", descriptor


def _outranks(stored: bytes, manifest: Manifest, request: Request) -> bool:
    """Whether the store has the same bytes signed for a higher sequence, by keys that count.

    That sequence may be the floor by now, which this request cannot know yet: bytes that are
    signed back would be refused at the next boot, and with them the services.
    """
    from extsloader.verify.trust import accept  # noqa: PLC0415 - as in _vouch

    source = replace(request.source, kind=SourceKind.STORED)
    try:
        kept = accept(stored, replace(request, source=source)).manifest
    except ImageRefusedError:
        return False
    same = (kept.name, kept.image.digest) == (manifest.name, manifest.image.digest)
    return same and kept.sequence > manifest.sequence


def check_stored(medium: Medium, image: ImageSpec, progress: Progress) -> tuple[str, int]:
    """Hash a file of the store where it lies: it may have rotted, or have been put there.

    Its hash tree was checked when it was brought in, and the digest covers the tree.
    """
    path = medium.source.id.path
    check_digest(image, hash_all(medium.read_into, image.size, progress))
    if Path(path).name != image_name(image.digest):
        raise ImageRefusedError(
            Code.DIGEST,
            f"cannot accept {path}: {image_name(image.digest)} expected as its name",
            "delete the file, the store names files itself",
        )
    medium.check()
    return path, os.dup(medium.descriptor)


def _vouch(medium: Medium, request: Request, progress: Progress) -> tuple[StoredImage, bytes]:
    """What vouches for the medium's image, and the envelope that is kept with it.

    What the core image names goes first: then nothing that the medium says of itself is asked.
    """
    pin = read_pin(request.root_hash)
    pinned = find_pinned(medium, pin, request.machine, progress) if pin else None
    envelope = find_envelope(medium, request.keys, pin) if pinned is None else b""
    # Cryptography and schema take most of a helper's start: garbage never gets that far.
    from extsloader.image.schema import encode_manifest  # noqa: PLC0415
    from extsloader.verify.trust import accept, accept_pinned  # noqa: PLC0415

    if pinned is None:
        return accept(envelope, request), envelope
    return accept_pinned(pinned, request), wrap(encode_manifest(pinned))


def _check_pinned(descriptor: int, image: ImageSpec) -> None:
    """Its digest is only what we have read; the root hash has to vouch for what is kept.

    Also for a file of that digest which was in the store: who can write there may have put it in.
    """
    try:
        check_content(descriptor, image)
    except BaseException:
        os.close(descriptor)
        raise


def _read_sidecar(source: Source) -> bytes | None:
    """Read `<image>.manifest.json`, bounded; None where there is none."""
    sidecar = replace(source, id=replace(source.id, path=source.id.path + SIDECAR_SUFFIX))
    try:
        with os.fdopen(os.open(sidecar.id.path, FLAGS), "rb") as file:
            return file.read(MAX_ENVELOPE + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise refusal(sidecar, error) from error
