"""Pinned mode: the core image carries the manifest of the one image that it belongs to.

EVE's own model of trust: no signature, because what the core image says is as good as one. The
manifest lies beside the keys as `pinned.json`; it says digest, hash tree and services.
"""

import os
from pathlib import Path

from extsloader.image.envelope import build_envelope
from extsloader.image.trailer import MAX_ENVELOPE
from extsloader.model.errors import ImageRefusedError
from extsloader.model.reasons import Code

PINNED = "pinned.json"


def read_pinned(directory: str) -> bytes | None:
    """The bytes of the pinned manifest; None where nothing is pinned.

    Raises ImageRefusedError(E_KEYS).
    """
    path = Path(directory, PINNED)
    try:
        with path.open("rb") as file:
            return file.read(MAX_ENVELOPE)
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise ImageRefusedError(
            Code.KEYS, f"cannot use {path}: {reason}", "correct the core image"
        ) from error


def wrap(manifest: bytes) -> bytes:
    """The envelope of a pinned manifest: it travels as a signed one does, without signatures."""
    return build_envelope(manifest, ())
