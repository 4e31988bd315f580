"""Ed25519 signatures over DSSE's pre-authentication encoding, both ways.

Kept apart from the envelope's shape, because only this module loads the cryptography.
"""

from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from securesystemslib.dsse import Envelope as Dsse
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import CryptoSigner, SSlibKey
from securesystemslib.signer import Signature as SSlibSignature

from extsloader.image.envelope import PAYLOAD_TYPE, Envelope, Signature, build_envelope
from extsloader.model.errors import ImageRefusedError
from extsloader.model.reasons import Code

MAX_KEY_FILE = 16 << 10  # bytes
SIGNATURE_SIZE = 64  # bytes (RFC 8032, 5.1.6)

_PRIME = 2**255 - 19
_D = -121665 * pow(121666, -1, _PRIME)  # of the curve (RFC 8032, 5.1)


def load_private_key(path: str) -> Ed25519PrivateKey:
    """Read a PEM private key without a pass phrase. Raises ImageRefusedError(E_KEYS), OSError."""
    try:
        key = load_pem_private_key(_read_key(path), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _unusable(path, error) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _unusable(path, "no Ed25519 private key")
    return key


def load_public_key(path: str) -> SSlibKey:
    """Read a PEM public key. Raises ImageRefusedError(E_KEYS), OSError."""
    try:
        key = load_pem_public_key(_read_key(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _unusable(path, error) from None
    if not isinstance(key, Ed25519PublicKey):
        raise _unusable(path, "no Ed25519 public key")
    if _has_small_order(key.public_bytes_raw()):
        raise _unusable(path, "its order is small, so that anybody can sign for it")
    return SSlibKey.from_crypto(key)


def sign(payload: bytes, private_keys: Sequence[Ed25519PrivateKey]) -> bytes:
    """Sign the manifest's bytes with every key; returns the envelope's bytes."""
    message = pae(payload)
    signed = [CryptoSigner(key).sign(message) for key in private_keys]
    return build_envelope(
        payload,
        [Signature(key_id=s.keyid, value=bytes.fromhex(s.signature)) for s in signed],
    )


def signers(envelope: Envelope, keys: Sequence[SSlibKey]) -> tuple[str, ...]:
    """Ids of the distinct public keys that signed; what the envelope says of itself is no help.

    Each key is tried on each signature, because the key id in the envelope is not authenticated.
    """
    message = pae(envelope.payload)
    distinct = {key.keyval["public"]: key for key in keys}
    return tuple(
        sorted(
            key.keyid
            for key in distinct.values()
            if any(_signed_by(key, entry.value, message) for entry in envelope.signatures)
        )
    )


def pae(payload: bytes) -> bytes:
    """The bytes that are signed (DSSE protocol.md, "PAE"), for our one payload type."""
    return Dsse(payload, PAYLOAD_TYPE, {}).pae()


def _signed_by(key: SSlibKey, value: bytes, message: bytes) -> bool:
    if len(value) != SIGNATURE_SIZE:
        return False
    try:
        key.verify_signature(SSlibSignature(key.keyid, value.hex()), message)
    except UnverifiedSignatureError:
        return False
    return True


def _has_small_order(encoded: bytes) -> bool:
    """Tell the points of order 1, 2, 4 and 8 from the others, in whatever spelling.

    OpenSSL accepts them, and one constant is then a signature of any message. Only y is looked at:
    it is 1, -1 and 0 for the orders 1, 2 and 4; for 8, doubling the point has to give a y of 0.
    """
    y = int.from_bytes(encoded, "little") % 2**255  # the highest bit is the sign of x
    return y * (y**2 - 1) * (_D * y**4 + 2 * y**2 - 1) % _PRIME == 0


def _read_key(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(MAX_KEY_FILE)


def _unusable(path: str, reason: object) -> ImageRefusedError:
    return ImageRefusedError(
        Code.KEYS, f"cannot use the key {path}: {reason}", "give an Ed25519 key as a PEM file"
    )
