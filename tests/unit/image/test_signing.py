"""Who signed: distinct public keys over the exact bytes, whatever the envelope claims."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from securesystemslib.signer import SSlibKey

from extsloader.image.envelope import PAYLOAD_TYPE, Envelope, Signature, parse_envelope
from extsloader.image.signing import load_private_key, load_public_key, pae, sign, signers
from extsloader.model.errors import ImageRefusedError
from extsloader.model.reasons import Code
from tests.fakes.images import private_key

PAYLOAD = b'{"schema":1}'
ORDER = 2**252 + 27742317777372353535851937790883648493  # of the Ed25519 group (RFC 8032, 5.1)


def public(number: int) -> SSlibKey:
    return SSlibKey.from_crypto(private_key(number).public_key())


def signed_by(*numbers: int, payload: bytes = PAYLOAD) -> Envelope:
    return parse_envelope(sign(payload, [private_key(number) for number in numbers]))


def carrying(value: bytes, key_id: str = "") -> Envelope:
    return Envelope(payload=PAYLOAD, signatures=(Signature(key_id=key_id, value=value),))


def pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def test_the_encoding_is_that_of_the_dsse_specification() -> None:
    assert pae(b"hello world") == b"DSSEv1 %d %s 11 hello world" % (
        len(PAYLOAD_TYPE),
        PAYLOAD_TYPE.encode(),
    )


def test_every_key_that_signed_is_found() -> None:
    keys = [public(1), public(2), public(3)]
    assert signers(signed_by(1), keys) == (public(1).keyid,)
    assert signers(signed_by(3, 1), keys) == tuple(sorted((public(1).keyid, public(3).keyid)))
    assert signers(signed_by(4), keys) == ()


def test_signing_twice_gives_the_same_bytes() -> None:
    assert sign(PAYLOAD, [private_key()]) == sign(PAYLOAD, [private_key()])


def test_one_key_counts_once_however_often_it_signed_or_is_listed() -> None:
    once = signed_by(1)
    twice = replace(once, signatures=once.signatures * 2)
    again = SSlibKey.from_crypto(private_key(1).public_key(), keyid="another")
    assert len(signers(twice, [public(1)])) == 1
    assert len(signers(twice, [public(1), again])) == 1


def test_the_key_id_decides_nothing() -> None:
    good = signed_by(1).signatures[0]
    other = replace(signed_by(2).signatures[0], key_id=public(1).keyid)
    assert signers(carrying(good.value, "nonsense"), [public(1)])
    assert not signers(carrying(other.value, other.key_id), [public(1)])


def test_a_valid_signature_next_to_an_invalid_one_counts() -> None:
    good = signed_by(1)
    mixed = replace(good, signatures=(Signature(key_id="", value=b"x" * 64), *good.signatures))
    assert signers(mixed, [public(1)]) == (public(1).keyid,)


@pytest.mark.parametrize(
    "message", [PAYLOAD, b"e30=", pae(PAYLOAD).replace(b"+json", b"+jsoN"), pae(PAYLOAD) + b" "]
)
def test_only_a_signature_over_our_encoding_counts(message: bytes) -> None:
    assert not signers(carrying(private_key().sign(message)), [public(1)])


def test_malformed_and_malleable_signatures_do_not_count() -> None:
    good = signed_by(1).signatures[0].value
    larger = int.from_bytes(good[32:], "little") + ORDER
    malleable = good[:32] + larger.to_bytes(32, "little")
    for value in (b"", good[:63], good + b"\0", bytes(64), malleable):
        assert not signers(carrying(value), [public(1)])


@pytest.mark.parametrize("sign_bit", [0, 0x80])
@pytest.mark.parametrize(
    "point",
    [
        pytest.param("01" + "00" * 31, id="order 1"),
        pytest.param("ee" + "ff" * 30 + "7f", id="order 1, not reduced"),
        pytest.param("ec" + "ff" * 30 + "7f", id="order 2"),
        pytest.param("00" * 32, id="order 4"),
        pytest.param("ed" + "ff" * 30 + "7f", id="order 4, not reduced"),
        pytest.param(
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", id="order 8"
        ),
        pytest.param(
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a", id="order 8, other"
        ),
    ],
)
def test_a_key_that_anybody_can_sign_for_is_refused(
    tmp_path: Path, point: str, sign_bit: int
) -> None:
    raw = bytearray.fromhex(point)
    raw[31] |= sign_bit
    path = tmp_path / "weak.pem"
    key = Ed25519PublicKey.from_public_bytes(bytes(raw))
    path.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(ImageRefusedError, match="its order is small"):
        load_public_key(str(path))


def test_without_that_refusal_a_constant_signs_everything() -> None:
    weak = SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(b"\x01" + bytes(31)))
    assert signers(carrying(b"\x01" + bytes(63)), [weak])


def test_key_files_are_read_and_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(pem(private_key()))
    assert pem(load_private_key(str(path))) == pem(private_key())
    with pytest.raises(ImageRefusedError, match="cannot use the key") as caught:
        load_public_key(str(path))
    assert caught.value.problem.code is Code.KEYS
    other = generate_ec(SECP256R1())
    path.write_bytes(
        other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    with pytest.raises(ImageRefusedError, match="no Ed25519 public key"):
        load_public_key(str(path))
    path.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(ImageRefusedError, match="no Ed25519 private key"):
        load_private_key(str(path))
    for junk in (b"", b"junk", pem(private_key())[:60]):
        path.write_bytes(junk)
        with pytest.raises(ImageRefusedError, match="cannot use the key"):
            load_private_key(str(path))


def test_the_envelope_is_plain_dsse() -> None:
    found = json.loads(sign(PAYLOAD, [private_key()]))
    assert list(found) == ["payload", "payloadType", "signatures"]
    assert found["signatures"][0]["keyid"] == public(1).keyid
