"""The order of trust, from a medium that is not trusted at all to an image that is kept.

Each step may refuse, and none looks at more bytes than the steps before it have vouched for.
"""

import os
from dataclasses import replace
from pathlib import Path

from extsloader.image.trailer import MAX_ENVELOPE, SIDECAR_SUFFIX, find_end, read_trailer
from extsloader.model.errors import ImageRefusedError
from extsloader.model.helper import Request
from extsloader.model.manifest import ImageSpec, StoredImage
from extsloader.model.reasons import Code
from extsloader.model.source import Source, SourceKind
from extsloader.verify.carrier import find_image
from extsloader.verify.identity import FLAGS, refusal
from extsloader.verify.medium import Medium, open_medium
from extsloader.verify.pinned import read_pinned, wrap
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
        envelope = find_envelope(medium, request.keys)
        vouched = _accept(envelope, request)
        manifest = vouched.manifest
        check_size(manifest.image, medium.size)
        if request.source.kind is SourceKind.STORED:
            path, descriptor = check_stored(medium, manifest.image, progress)
        else:
            path, descriptor = bring_in(medium, manifest.image, envelope, request, progress)
    return replace(vouched, path=path), descriptor


def verify_in_place(request: Request, progress: Progress) -> StoredImage:
    """Verify a file as a device would, but keep nothing. Raises ImageRefusedError."""
    with open_medium(request.source) as medium:
        vouched = _accept(find_envelope(medium, request.keys), request)
        image = vouched.manifest.image
        check_size(image, request.source.size)
        check_digest(image, hash_all(medium.read_into, image.size, progress))
        check_content(medium.descriptor, image)
        medium.check()
    return vouched


def find_envelope(medium: Medium, keys: str) -> bytes:
    """The signed envelope from the trailer, or from the file beside the image, or a pinned one.

    At most the superblock and 64 KiB are read. Raises ImageRefusedError(E_ENVELOPE) without one.
    """
    end = find_end(medium.read)
    trailer = read_trailer(medium.read, end) if end < medium.size else None
    if trailer is not None:
        return trailer.envelope
    sidecar = _read_sidecar(medium.source) if medium.source.kind is SourceKind.FILE else None
    if sidecar is not None:
        return sidecar
    pinned = read_pinned(keys)
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
    medium: Medium, image: ImageSpec, envelope: bytes, request: Request, progress: Progress
) -> tuple[str, int]:
    """Copy the image into the store unless it is there; path and descriptor of the stored file."""
    with open_store(request.store) as store:
        descriptor = store.find(image, envelope, progress)
        if descriptor is None:
            store.check_room(image, request.reserve)
            pace = Pace(request.min_rate)
            descriptor = store.keep(medium, image, envelope, pace, progress)
    return f"{request.store}/{image_name(image.digest)}", descriptor


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


def _accept(envelope: bytes, request: Request) -> StoredImage:
    # Cryptography and schema take most of a helper's start: garbage never gets that far.
    from extsloader.verify.trust import accept  # noqa: PLC0415

    return accept(envelope, request)


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
