"""The keys that this device accepts: PEM files in one directory, and how many have to sign.

They belong to the bootstrap image; nothing from outside ever adds one. Unusable keys mean that no
image is accepted, never that fewer checks are made.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from securesystemslib.signer import SSlibKey

from extsloader.image.signing import load_public_key
from extsloader.image.strictjson import parse_object, shown
from extsloader.model.errors import ImageRefusedError
from extsloader.model.reasons import Code
from extsloader.verify.pinned import read_pinned

POLICY = "policy.json"
MAX_KEYS = 16
MAX_POLICY = 16 << 10  # bytes

_MEMBERS = {
    "threshold": "a number from 1 on",
    "epoch": "a number from 0 on",
    "retired": "a list of file names",
    "revoked": "a list of file names",
    "revoked_images": "a list of digests",
}
_ABSENT: dict[str, Any] = {"epoch": 0, "retired": [], "revoked": [], "revoked_images": []}


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """`policy.json`; the key files are named, so that nobody has to copy a key id."""

    threshold: int = 1  # distinct keys that have to sign
    epoch: int = 0  # counts key sets: a device does not go back to an older one
    retired: tuple[str, ...] = ()  # files: what they have signed runs on, nothing new comes in
    revoked: tuple[str, ...] = ()  # files: what they have signed is refused everywhere
    revoked_images: tuple[str, ...] = ()  # digests: refused everywhere, whoever has signed them


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRing:
    """Distinct public keys, and how many of them must have signed."""

    keys: tuple[SSlibKey, ...]
    retired: tuple[SSlibKey, ...]
    revoked: tuple[SSlibKey, ...]
    threshold: int
    epoch: int
    revoked_images: tuple[str, ...] = ()
    pinned: bytes | None = None  # the manifest of the image that needs no signature


def load_keys(directory: str, *, needed: bool = True) -> KeyRing:
    """Read `*.pem`, `policy.json` and `pinned.json`. Raises ImageRefusedError(E_KEYS).

    Where no key is `needed` there may be none, nor the directory.
    """
    folder = Path(directory)
    if not needed and not folder.exists():
        return _sort_keys({}, Policy())
    try:
        if folder.stat().st_mode & 0o002:
            raise _unusable(directory, "everybody may write there", f"chmod o-w {directory}")
        files = sorted(folder.glob("*.pem"))
        if len(files) > MAX_KEYS:
            raise _unusable(directory, f"at most {MAX_KEYS} keys expected, {len(files)} got")
        keys = {path.name: load_public_key(str(path)) for path in files}
        policy = _read_policy(folder / POLICY, frozenset(keys))
    except OSError as error:
        raise _unusable(
            error.filename or directory, os.strerror(error.errno or 0).lower()
        ) from None
    ring = replace(_sort_keys(keys, policy), pinned=read_pinned(directory))
    if needed and not ring.keys and ring.pinned is None:
        raise _unusable(
            directory, "there is no *.pem file that counts", "put the signer's public key there"
        )
    if ring.threshold > len(ring.keys) and ring.keys:
        reason = f"threshold {ring.threshold} is more than the {len(ring.keys)} distinct keys"
        raise _unusable(directory, reason)
    return ring


def _sort_keys(keys: dict[str, SSlibKey], policy: Policy) -> KeyRing:
    """A key counts once, in how many files it may be, and by the worst that is said of it."""
    unlike: dict[str, SSlibKey] = {}

    def take(names: Iterable[str]) -> tuple[SSlibKey, ...]:
        found = {keys[name].keyval["public"]: keys[name] for name in names}
        fresh = {public: key for public, key in found.items() if public not in unlike}
        unlike.update(fresh)
        return tuple(fresh.values())

    return KeyRing(
        revoked=take(policy.revoked),
        retired=take(policy.retired),
        keys=take(keys),
        threshold=policy.threshold,
        epoch=policy.epoch,
        revoked_images=policy.revoked_images,
    )


def _read_policy(path: Path, files: frozenset[str]) -> Policy:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_POLICY)
    except FileNotFoundError:
        return Policy()
    try:
        policy = parse_object(raw)
    except ValueError as error:
        raise _unusable(str(path), str(error)) from None
    wrong = [
        *(f"{shown(name)} is unknown" for name in sorted(policy.keys() - _MEMBERS)),
        *(f"{name}: {_MEMBERS[name]} expected" for name in _MEMBERS if not _fits(name, policy)),
    ]
    if wrong:
        raise _unusable(str(path), ", ".join(wrong))
    retired, revoked = (tuple(policy.get(name, ())) for name in ("retired", "revoked"))
    if missing := sorted({*retired, *revoked} - files):
        named = ", ".join(map(shown, missing))
        raise _unusable(str(path), f"it names {named}, which is not there", "keep the key's file")
    return Policy(
        threshold=policy["threshold"],
        epoch=policy.get("epoch", 0),
        retired=retired,
        revoked=revoked,
        revoked_images=tuple(policy.get("revoked_images", ())),
    )


def _fits(name: str, policy: dict[str, Any]) -> bool:
    """The threshold has to be said: a policy that forgot it must not mean that one is enough."""
    value = policy.get(name, None if name == "threshold" else _ABSENT[name])
    if name == "revoked_images":
        return isinstance(value, list) and all(_is_digest(entry) for entry in value)
    if name in ("retired", "revoked"):
        return isinstance(value, list) and all(isinstance(entry, str) for entry in value)
    return type(value) is int and value >= (1 if name == "threshold" else 0)


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _unusable(path: str, reason: str, hint: str = "correct the device's keys") -> ImageRefusedError:
    return ImageRefusedError(Code.KEYS, f"cannot use the keys in {path}: {reason}", hint)
