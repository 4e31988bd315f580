"""The envelope's shape: one spelling only, nothing unknown, nothing unbounded."""

import json
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extsloader.image.envelope import (
    PAYLOAD_TYPE,
    Envelope,
    Signature,
    build_envelope,
    parse_envelope,
)
from extsloader.image.trailer import MAX_ENVELOPE
from extsloader.model.errors import ImageRefusedError
from extsloader.model.reasons import Code

SIG = {"keyid": "k", "sig": b64encode(b"s" * 64).decode()}
GOOD = {"payload": "e30=", "payloadType": PAYLOAD_TYPE, "signatures": [SIG]}


def refusal(raw: bytes | dict[str, object]) -> tuple[Code, str]:
    with pytest.raises(ImageRefusedError) as caught:
        parse_envelope(raw if isinstance(raw, bytes) else json.dumps(raw).encode())
    return caught.value.problem.code, caught.value.problem.message


def test_a_good_envelope_is_taken_apart() -> None:
    found = parse_envelope(json.dumps(GOOD).encode())
    assert found == Envelope(payload=b"{}", signatures=(Signature(key_id="k", value=b"s" * 64),))


@given(
    st.binary(max_size=200),
    st.lists(st.tuples(st.text("0123456789abcdef", max_size=64), st.binary()), min_size=1),
)
def test_what_is_built_is_read(payload: bytes, signed: list[tuple[str, bytes]]) -> None:
    signatures = tuple(Signature(key_id=key_id, value=value) for key_id, value in signed[:16])
    raw = build_envelope(payload, signatures)
    assert parse_envelope(raw) == Envelope(payload=payload, signatures=signatures)


@pytest.mark.parametrize("raw", [b"", b"{", b"   ", b"[]", json.dumps(GOOD).encode() + b"\0"])
def test_what_is_no_json_object_is_refused(raw: bytes) -> None:
    assert refusal(raw)[0] is Code.ENVELOPE


def test_size_is_judged_before_anything_else() -> None:
    raw = json.dumps(GOOD).encode()
    assert parse_envelope(raw.ljust(MAX_ENVELOPE)).payload == b"{}"
    assert refusal(raw.ljust(MAX_ENVELOPE + 1)) == (
        Code.LIMIT,
        "cannot accept the envelope: at most 65536 bytes expected, 65537 or more got",
    )


@pytest.mark.parametrize(
    "text",
    ["e30", "e30==", "e30=\n", " e30=", "e 30=", "e31=", "_-8=", "e30=e30=", "é", 7, ["e30="]],
)
def test_base64_has_one_spelling(text: object) -> None:
    spoiled: list[dict[str, object]] = [
        {**GOOD, "payload": text},
        {**GOOD, "signatures": [{**SIG, "sig": text}]},
    ]
    for bad in spoiled:
        code, message = refusal(bad)
        assert code is Code.ENVELOPE
        assert "is not canonical base64" in message


@pytest.mark.parametrize(
    "wrong", ["", "text/plain", PAYLOAD_TYPE + ";charset=utf-8", PAYLOAD_TYPE.upper(), [], 1]
)
def test_only_our_payload_type_is_read(wrong: object) -> None:
    code, message = refusal({**GOOD, "payloadType": wrong})
    assert code is Code.ENVELOPE
    assert f"payloadType {PAYLOAD_TYPE} expected" in message


@pytest.mark.parametrize("signatures", [{}, [], "", 0, "x"])
def test_without_signatures_the_threshold_is_missed(signatures: object) -> None:
    assert refusal({**GOOD, "signatures": signatures})[0] is Code.THRESHOLD
    assert refusal({"payload": "e30=", "payloadType": PAYLOAD_TYPE})[0] is Code.THRESHOLD


def test_signatures_are_counted_before_they_are_looked_at() -> None:
    parse_envelope(json.dumps({**GOOD, "signatures": [SIG] * 16}).encode())
    assert refusal({**GOOD, "signatures": [0] * 17}) == (
        Code.LIMIT,
        "cannot accept the envelope: at most 16 signatures expected, 17 got",
    )


def test_unknown_and_missing_members_are_named() -> None:
    for name in ("Payload", "cert", "publicKey", "x5c"):
        assert f"{name!r} is unknown" in refusal({**GOOD, name: "e30="})[1]
        assert f"{name!r} is unknown" in refusal({**GOOD, "signatures": [{**SIG, name: ""}]})[1]
    assert "payload is missing" in refusal({"signatures": [SIG], "payloadType": PAYLOAD_TYPE})[1]
    assert "sig is missing" in refusal({**GOOD, "signatures": [{"keyid": ""}]})[1]


def test_a_key_id_is_optional_text_of_bounded_length() -> None:
    assert parse_envelope(
        json.dumps({**GOOD, "signatures": [{"sig": SIG["sig"]}]}).encode()
    ).signatures == (Signature(key_id="", value=b"s" * 64),)
    assert refusal({**GOOD, "signatures": [{**SIG, "keyid": 7}]})[0] is Code.ENVELOPE
    assert refusal({**GOOD, "signatures": [{**SIG, "keyid": "k" * 257}]})[0] is Code.LIMIT
    assert refusal({**GOOD, "signatures": ["x"]})[0] is Code.ENVELOPE
