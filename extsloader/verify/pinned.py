"""Pinned mode: the core image names the one image that it belongs to.

EVE's own model of trust: no signature, because what the core image says is as good as one. It
says it in two lines, root hash and size of the data, and the services are those that lie in the
image; or by a whole manifest, `pinned.json` beside the keys. docs/adr/0029-two-lines.md
"""

import hmac
import os
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from extsloader.image.envelope import build_envelope
from extsloader.image.superblock import read_squashfs
from extsloader.image.trailer import MAX_ENVELOPE
from extsloader.image.verity import ALGORITHM, BLOCK, image_size, read_superblock, round_up
from extsloader.model.errors import ImageRefusedError
from extsloader.model.ids import Digest
from extsloader.model.machine import Machine
from extsloader.model.manifest import Compatible, ImageSpec, Manifest, Verity
from extsloader.model.reasons import Code
from extsloader.verify.medium import Medium
from extsloader.verify.store import Progress, hash_all

PINNED = "pinned.json"
_LINES = re.compile(rb"([0-9a-fA-F]{64})\r?\n([0-9]{1,15})\s{0,16}")
_MAX_LINES = 256  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """What the two lines say."""

    root_hash: str
    size: int  # bytes of the data, and where the superblock of the hash tree lies


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
        raise _unusable(str(path), os.strerror(error.errno or 0).lower()) from error


def wrap(manifest: bytes) -> bytes:
    """The envelope of a pinned manifest: it travels as a signed one does, without signatures."""
    return build_envelope(manifest, ())


def read_pin(path: str) -> Pin | None:
    """The two lines; None where there are none, or no `path`. Raises ImageRefusedError(E_KEYS)."""
    if not path:
        return None
    try:
        with Path(path).open("rb") as file:
            raw = file.read(_MAX_LINES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, os.strerror(error.errno or 0).lower()) from error
    found = _LINES.fullmatch(raw)
    size = int(found[2]) if found else 0
    if not found or not size or size % BLOCK:
        raise _unusable(path, f"64 hex digits, then a multiple of {BLOCK}, expected on two lines")
    return Pin(root_hash=found[1].decode().lower(), size=size)


def find_pinned(
    medium: Medium, pin: Pin, machine: Machine | None, progress: Progress
) -> Manifest | None:
    """What can be said of the image that the two lines name; None where this is another one.

    Salt and digest are what the medium says, and proven by nothing: `verify_tree` has to find the
    pinned root hash over the bytes that are kept. What is no such image is known by one block, the
    top of its tree. Raises ImageRefusedError as reading does.
    """
    verity = _find_tree(medium, pin)
    if verity is None:
        return None
    size = image_size(verity.data_blocks)
    digest = hash_all(medium.read_into, size, progress)
    return Manifest(
        schema=1,
        name="pinned",
        version=pin.root_hash[:12],
        sequence=1,
        issued_at="1970-01-01T00:00:00Z",
        image=ImageSpec(size=size, digest=Digest(digest), format="squashfs", verity=verity),
        compatible=Compatible(
            arch=machine.arch if machine else "any",
            hypervisors=(machine.hypervisor if machine else "any",),
        ),
        services=(),
    )


def _find_tree(medium: Medium, pin: Pin) -> Verity | None:
    squashfs = read_squashfs(medium.read)
    found = read_superblock(medium.read, pin.size)
    if squashfs is None or found is None or round_up(squashfs.used) != pin.size:
        return None
    # A single block of data has no tree above it: its own digest is the root.
    top = medium.read(pin.size + BLOCK if pin.size > BLOCK else 0, BLOCK)
    root = sha256(found.salt + top).hexdigest()
    if not hmac.compare_digest(root, pin.root_hash):
        return None
    return Verity(
        algorithm=ALGORITHM,
        root_hash=pin.root_hash,
        salt=found.salt.hex(),
        block_size=BLOCK,
        data_blocks=pin.size // BLOCK,
        hash_offset=pin.size,
    )


def _unusable(path: str, reason: str) -> ImageRefusedError:
    return ImageRefusedError(Code.KEYS, f"cannot use {path}: {reason}", "correct the core image")
