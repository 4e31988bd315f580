"""The signed envelope: DSSE 1.0 (github.com/secure-systems-lab/dsse, envelope.md), parsed strictly.

Only the shape is checked here; `extsloader.image.signing` decides who signed. The payload is kept
as the bytes that were signed and is never written out again to be checked.
"""

import json
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from extsloader.image.strictjson import parse_object, shown
from extsloader.image.trailer import MAX_ENVELOPE
from extsloader.model.errors import ImageRefusedError
from extsloader.model.reasons import Code

PAYLOAD_TYPE = "application/vnd.extsloader.manifest+json"
MAX_SIGNATURES = 16
MAX_KEY_ID = 256  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One signature; the key id is a hint for people, never an authority."""

    key_id: str
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What was signed and by whom it claims to be signed."""

    payload: bytes
    signatures: tuple[Signature, ...]


def parse_envelope(raw: bytes) -> Envelope:
    """Take the envelope apart. Raises ImageRefusedError: E_LIMIT, E_ENVELOPE or E_THRESHOLD."""
    if len(raw) > MAX_ENVELOPE:
        raise _refused(
            f"at most {MAX_ENVELOPE} bytes expected, {len(raw)} or more got", code=Code.LIMIT
        )
    try:
        found = parse_object(raw)
    except ValueError as error:
        raise _refused(str(error)) from None
    signatures = found.get("signatures")
    if not isinstance(signatures, list) or not signatures:
        raise _refused("it has no signatures", code=Code.THRESHOLD)
    if len(signatures) > MAX_SIGNATURES:
        raise _refused(
            f"at most {MAX_SIGNATURES} signatures expected, {len(signatures)} got", code=Code.LIMIT
        )
    _check_names(found, {"payload", "payloadType", "signatures"})
    if found["payloadType"] != PAYLOAD_TYPE:
        raise _refused(f"payloadType {PAYLOAD_TYPE} expected, {_brief(found['payloadType'])} got")
    return Envelope(
        payload=_decode("payload", found["payload"]),
        signatures=tuple(_signature(entry) for entry in signatures),
    )


def build_envelope(payload: bytes, signatures: Iterable[Signature]) -> bytes:
    """The envelope's bytes: members in a fixed order, so that building twice gives the same."""
    found = {
        "payload": b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [
            {"keyid": signature.key_id, "sig": b64encode(signature.value).decode()}
            for signature in signatures
        ],
    }
    return json.dumps(found, separators=(",", ":")).encode()


def _signature(entry: Any) -> Signature:
    if not isinstance(entry, dict):
        raise _refused("a signature is no object")
    _check_names({"keyid": "", **entry}, {"keyid", "sig"})
    key_id = entry.get("keyid", "")
    if not isinstance(key_id, str):
        raise _refused("a keyid is no string")
    if len(key_id) > MAX_KEY_ID:
        raise _refused(f"a keyid is longer than {MAX_KEY_ID} characters", code=Code.LIMIT)
    return Signature(key_id=key_id, value=_decode("sig", entry["sig"]))


def _check_names(found: dict[str, Any], wanted: set[str]) -> None:
    """Unknown members are refused: a key or certificate in an envelope must not look honoured."""
    missing = [f"{name} is missing" for name in sorted(wanted - found.keys())]
    unknown = [f"{shown(name)} is unknown" for name in sorted(found.keys() - wanted)]
    if missing or unknown:
        raise _refused(", ".join(missing + unknown))


def _decode(name: str, text: Any) -> bytes:
    """Base64 in its one canonical spelling: b64decode alone skips what it does not know."""
    try:
        value = b64decode(text, validate=True) if isinstance(text, str) else None
    except (Base64Error, ValueError):
        value = None
    if value is None or b64encode(value).decode() != text:
        raise _refused(f"{name} is not canonical base64")
    return value


def _brief(value: Any) -> str:
    return shown(value) if isinstance(value, str) else f"a {type(value).__name__}"


def _refused(reason: str, code: Code = Code.ENVELOPE) -> ImageRefusedError:
    return ImageRefusedError(code, f"cannot accept the envelope: {reason}", "sign the image anew")
