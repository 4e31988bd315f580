"""The keys that this device accepts: PEM files in one directory, and how many have to sign.

They belong to the bootstrap image; nothing from outside ever adds one. Unusable keys mean that no
image is accepted, never that fewer checks are made.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from securesystemslib.signer import SSlibKey

from extsloader.image.signing import load_public_key
from extsloader.image.strictjson import parse_object
from extsloader.model.errors import ImageRefusedError
from extsloader.model.reasons import Code

POLICY = "policy.json"
MAX_KEYS = 16
MAX_POLICY = 4 << 10  # bytes


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Distinct public keys, and how many of them must have signed."""

    keys: tuple[SSlibKey, ...]
    threshold: int
    epoch: int = 0


def load_keys(directory: str) -> KeyRing:
    """Read `*.pem` and `policy.json`. Raises ImageRefusedError(E_KEYS)."""
    folder = Path(directory)
    try:
        if folder.stat().st_mode & 0o002:
            raise _unusable(directory, "everybody may write there", f"chmod o-w {directory}")
        files = sorted(folder.glob("*.pem"))
        if len(files) > MAX_KEYS:
            raise _unusable(directory, f"at most {MAX_KEYS} keys expected, {len(files)} got")
        keys = {key.keyval["public"]: key for key in map(load_public_key, map(str, files))}
        threshold = _read_threshold(folder / POLICY)
    except OSError as error:
        raise _unusable(
            error.filename or directory, os.strerror(error.errno or 0).lower()
        ) from None
    if not keys:
        raise _unusable(directory, "there is no *.pem file", "put the signer's public key there")
    if threshold > len(keys):
        raise _unusable(
            directory, f"threshold {threshold} is more than the {len(keys)} distinct keys"
        )
    return KeyRing(tuple(keys.values()), threshold)


def _read_threshold(path: Path) -> int:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_POLICY)
    except FileNotFoundError:
        return 1
    try:
        policy = parse_object(raw)
    except ValueError as error:
        raise _unusable(str(path), str(error)) from None
    threshold = policy.get("threshold")
    if policy.keys() != {"threshold"} or type(threshold) is not int or threshold < 1:
        raise _unusable(str(path), 'something like {"threshold": 1} expected')
    return threshold


def _unusable(path: str, reason: str, hint: str = "correct the device's keys") -> ImageRefusedError:
    return ImageRefusedError(Code.KEYS, f"cannot use the keys in {path}: {reason}", hint)
