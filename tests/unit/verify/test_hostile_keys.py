"""Hostile signatures and keys, one row of the table of hostile inputs after the other.

Each envelope goes the whole way through `accept`; finer tests of the same rules are beside the
modules that hold them.
"""

import json
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from securesystemslib.signer import SSlibKey

from extsloader.image import signing
from extsloader.image.envelope import PAYLOAD_TYPE
from extsloader.image.schema import encode_manifest
from extsloader.image.signing import pae
from extsloader.model.errors import ImageRefusedError
from extsloader.model.helper import Request
from extsloader.model.manifest import StoredImage
from extsloader.model.reasons import Code
from extsloader.model.source import SourceKind
from extsloader.verify.trust import accept
from tests.fakes import images

ORDER = 2**252 + 27742317777372353535851937790883648493  # of the Ed25519 group (RFC 8032, 5.1)


@pytest.fixture
def payload(tmp_path: Path) -> bytes:
    return encode_manifest(images.manifest(images.unsigned(tmp_path / "image", size=5000)))


def request(
    tmp_path: Path, kind: SourceKind = SourceKind.FILE, epoch_seen: int = 0, **policy: object
) -> Request:
    """Asked by a device with keys 1 and 2."""
    keys = Path(images.key_directory(tmp_path / "keys", 1, 2))
    (keys / "policy.json").write_text(json.dumps({"threshold": 1, **policy}))
    source = images.file_source(tmp_path / "image", kind)
    return Request(
        source=source, machine=images.MACHINE, keys=str(keys), wall=2e9, key_epoch_seen=epoch_seen
    )


def entry(value: bytes, key_id: str = "") -> dict[str, str]:
    return {"keyid": key_id, "sig": b64encode(value).decode()}


def good(payload: bytes, number: int = 1) -> bytes:
    return images.private_key(number).sign(pae(payload))


def key_id(number: int) -> str:
    from_file = images.private_key(number).public_key()
    return SSlibKey.from_crypto(from_file).keyid


def envelope(payload: bytes, signatures: object, **others: object) -> bytes:
    found = {"payload": b64encode(payload).decode(), "payloadType": PAYLOAD_TYPE}
    return json.dumps({**found, "signatures": signatures, **others}).encode()


def refusal(raw: bytes, asked: Request) -> tuple[Code, str]:
    with pytest.raises(ImageRefusedError) as caught:
        accept(raw, asked)
    return caught.value.problem.code, caught.value.problem.message


def signed(payload: bytes, asked: Request, *numbers: int) -> StoredImage:
    return accept(envelope(payload, [entry(good(payload, n)) for n in numbers]), asked)


@pytest.mark.parametrize("signatures", [{}, []])
def test_h010_no_signatures(tmp_path: Path, payload: bytes, signatures: object) -> None:
    code, _ = refusal(envelope(payload, signatures), request(tmp_path))
    assert code is Code.THRESHOLD


def test_h010_null_and_nothing_in_place_of_signatures(tmp_path: Path, payload: bytes) -> None:
    """Null is refused by the strict reader of JSON, before anybody asks what it stands for."""
    asked = request(tmp_path)
    assert refusal(envelope(payload, None), asked)[0] is Code.ENVELOPE
    found = json.loads(envelope(payload, []))
    del found["signatures"]
    assert refusal(json.dumps(found).encode(), asked)[0] is Code.THRESHOLD


@pytest.mark.parametrize("count", [17, 400])
def test_h011_too_many_signatures_before_any_crypto(
    tmp_path: Path, payload: bytes, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "_signed_by", lambda *_: pytest.fail("a signature was verified"))
    raw = envelope(payload, [entry(good(payload))] * count)
    assert refusal(raw, request(tmp_path))[0] is Code.LIMIT


def test_h011_an_envelope_of_100_000_signatures(tmp_path: Path, payload: bytes) -> None:
    raw = envelope(payload, [entry(b"")] * 100_000)
    assert refusal(raw, request(tmp_path))[0] is Code.LIMIT


def test_h012_h013_one_key_is_one_signer_however_often_it_signs(
    tmp_path: Path, payload: bytes
) -> None:
    raw = envelope(payload, [entry(good(payload), "a"), entry(good(payload), "b")])
    assert refusal(raw, request(tmp_path, threshold=2))[0] is Code.THRESHOLD


def test_h014_one_key_in_two_files_is_one_key(tmp_path: Path, payload: bytes) -> None:
    asked = request(tmp_path, threshold=2)
    Path(asked.keys, "copy.pem").write_bytes(Path(asked.keys, "1.pem").read_bytes())
    raw = envelope(payload, [entry(good(payload), key_id(1)), entry(good(payload), key_id(2))])
    assert refusal(raw, asked)[0] is Code.THRESHOLD


@pytest.mark.parametrize("hint", ["", "wrong", "\x1b[31m", "k" * 256])
def test_h015_a_key_id_is_a_hint(tmp_path: Path, payload: bytes, hint: str) -> None:
    found = accept(envelope(payload, [entry(good(payload), hint)]), request(tmp_path))
    assert found.key_ids == (key_id(1),)


def test_h015_a_key_id_may_be_missing_but_not_long_or_with_a_nul(
    tmp_path: Path, payload: bytes
) -> None:
    asked = request(tmp_path)
    bare = {"sig": entry(good(payload))["sig"]}
    assert accept(envelope(payload, [bare]), asked).key_ids == (key_id(1),)
    assert refusal(envelope(payload, [entry(good(payload), "\0")]), asked)[0] is Code.ENVELOPE
    for length in (257, 1 << 20):
        raw = envelope(payload, [entry(good(payload), "k" * length)])
        assert refusal(raw, asked)[0] is Code.LIMIT


def test_h016_a_key_id_of_ours_over_a_signature_of_a_stranger(
    tmp_path: Path, payload: bytes
) -> None:
    raw = envelope(payload, [entry(good(payload, 3), key_id(1))])
    assert refusal(raw, request(tmp_path))[0] is Code.SIGNATURE


@pytest.mark.parametrize("member", ["cert", "publicKey", "x5c"])
def test_h017_an_envelope_brings_no_key(tmp_path: Path, payload: bytes, member: str) -> None:
    asked = request(tmp_path)
    inside = envelope(payload, [{**entry(good(payload)), member: "attacker's"}])
    beside = envelope(payload, [entry(good(payload))], **{member: "attacker's"})
    for raw in (inside, beside):
        assert refusal(raw, asked)[0] is Code.ENVELOPE


@pytest.mark.parametrize("kind", [SourceKind.FILE, SourceKind.STORED])
def test_h018_a_revoked_key_signs(tmp_path: Path, payload: bytes, kind: SourceKind) -> None:
    asked = request(tmp_path, kind, revoked=["1.pem"])
    code, message = refusal(envelope(payload, [entry(good(payload))]), asked)
    assert (code, "revoked" in message) == (Code.SIGNATURE, True)


def test_h019_a_bad_signature_beside_a_good_one(tmp_path: Path, payload: bytes) -> None:
    raw = envelope(payload, [entry(bytes(64)), entry(good(payload, 2))])
    assert accept(raw, request(tmp_path)).key_ids == (key_id(2),)


def malleable(value: bytes) -> bytes:
    return value[:32] + (int.from_bytes(value[32:], "little") + ORDER).to_bytes(32, "little")


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda _: b"", id="0 bytes"),
        pytest.param(lambda value: value[:63], id="63 bytes"),
        pytest.param(lambda value: value + b"\0", id="65 bytes"),
        pytest.param(lambda _: bytes(64), id="zeros"),
        pytest.param(malleable, id="S above the order"),
        pytest.param(lambda _: b"\x01" + bytes(63), id="what signs for a key of small order"),
    ],
)
def test_h020_malformed_signatures(
    tmp_path: Path, payload: bytes, spoil: Callable[[bytes], bytes]
) -> None:
    raw = envelope(payload, [entry(spoil(good(payload)))])
    assert refusal(raw, request(tmp_path))[0] is Code.SIGNATURE


def test_h020_a_key_of_small_order(tmp_path: Path, payload: bytes) -> None:
    asked = request(tmp_path)
    weak = Ed25519PublicKey.from_public_bytes(b"\x01" + bytes(31))
    pem = weak.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    Path(asked.keys, "1.pem").write_bytes(pem)
    raw = envelope(payload, [entry(b"\x01" + bytes(63))])
    assert refusal(raw, asked)[0] is Code.KEYS


@pytest.mark.parametrize(
    "encode",
    [
        pytest.param(lambda payload: payload, id="h021 no encoding"),
        pytest.param(b64encode, id="h021 base64"),
        pytest.param(lambda payload: pae(payload).replace(b"+json", b"+cbor"), id="h021 type"),
        pytest.param(lambda payload: pae(payload).replace(b"DSSEv1 ", b"DSSEv1 0"), id="h022 zero"),
        pytest.param(lambda payload: pae(payload).replace(b"vnd", b"vnd "), id="h022 space"),
    ],
)
def test_h021_h022_a_signature_over_something_else(
    tmp_path: Path, payload: bytes, encode: Callable[[bytes], bytes]
) -> None:
    value = images.private_key(1).sign(encode(payload))
    assert refusal(envelope(payload, [entry(value)]), request(tmp_path))[0] is Code.SIGNATURE


@pytest.mark.parametrize("threshold", [0, -1, 3, True, 1.0, "1", None])
def test_h025_a_threshold_that_makes_no_sense(
    tmp_path: Path, payload: bytes, threshold: object
) -> None:
    raw = envelope(payload, [entry(good(payload)), entry(good(payload, 2))])
    assert refusal(raw, request(tmp_path, threshold=threshold))[0] is Code.KEYS


def rsa(bits: int) -> bytes:
    key = generate_rsa(65537, bits).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("content", [b"", b"junk", rsa(1024)], ids=["empty", "junk", "RSA-1024"])
def test_h026_a_key_file_that_is_none(tmp_path: Path, payload: bytes, content: bytes) -> None:
    asked = request(tmp_path)
    Path(asked.keys, "2.pem").write_bytes(content)
    assert refusal(envelope(payload, [entry(good(payload))]), asked)[0] is Code.KEYS


def test_h026_without_key_files_nothing_is_accepted(tmp_path: Path, payload: bytes) -> None:
    asked = request(tmp_path)
    for path in Path(asked.keys).glob("*.pem"):
        path.unlink()
    assert refusal(envelope(payload, [entry(good(payload))]), asked)[0] is Code.KEYS


def test_h027_keys_that_are_older_than_keys_seen_before(tmp_path: Path, payload: bytes) -> None:
    asked = request(tmp_path, epoch=2, epoch_seen=3)
    assert refusal(envelope(payload, [entry(good(payload))]), asked)[0] is Code.KEYS


def test_h028_after_a_rotation_the_old_key_brings_nothing_new_and_stops_nothing(
    tmp_path: Path, payload: bytes
) -> None:
    asked = request(tmp_path, epoch=1, retired=["1.pem"])
    assert refusal(envelope(payload, [entry(good(payload))]), asked)[0] is Code.SIGNATURE
    stored = replace(asked, source=replace(asked.source, kind=SourceKind.STORED))
    assert signed(payload, stored, 1).retired
    assert not signed(payload, asked, 2).retired
