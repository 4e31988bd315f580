"""Rows H031 to H048: JSON that two readers could understand differently, though it is signed."""

import json
import time
from pathlib import Path

import pytest

from extsloader.image.schema import parse_manifest
from extsloader.model.errors import ImageRefusedError
from extsloader.model.manifest import StoredImage
from extsloader.model.reasons import Code
from tests.hostile.payloads import MANIFEST, PAYLOAD, ask, changed, judge_payload, with_service

pytestmark = pytest.mark.hostile

FOUND = json.loads(PAYLOAD)


def spelt(value: str) -> bytes:
    """The manifest with this text in place of its sequence."""
    return PAYLOAD.replace(b'"sequence":1', f'"sequence":{value}'.encode())


def named(value: str) -> bytes:
    """The manifest with this text between the quotes of its version."""
    return PAYLOAD.replace(b'"version":"1.0"', f'"version":"{value}"'.encode())


def raw_named(value: bytes) -> bytes:
    return PAYLOAD.replace(b'"version":"1.0"', b'"version":"' + value + b'"')


def services(count: int) -> bytes:
    return changed(
        services=[{"name": f"s{n}", "bundle": f"containers/services/s{n}"} for n in range(count)]
    )


SCHEMA = {
    "H031-top": PAYLOAD.replace(b'"sequence":1', b'"sequence":1,"sequence":1'),
    "H031-in-service": PAYLOAD.replace(b'"stage":0', b'"stage":0,"stage":0', 1),
    "H031-in-resources": with_service(resources={"memory": 1 << 20}).replace(
        b'"memory"', b'"memory": 1048576, "memory"'
    ),
    **{
        f"H032-{v}": spelt(v) for v in ("NaN", "Infinity", "-Infinity", "1e999", "1.0", "1e2", "-0")
    },
    "H033-5000-digits": spelt("9" * 5000),
    "H033-4299-digits": spelt("9" * 4299),
    **{
        f"H034-depth-{n}": changed(services=0).replace(b": 0", b": " + b"[" * n + b"]" * n)
        for n in (17, 1000, 10_000)
    },
    **{f"H035-{v}": spelt(v) for v in ("true", '"1"', "null")},
    "H035-one-for-true": with_service(essential=1),
    "H036-surrogate": named(r"\ud800"),
    "H036-nul": named(r"a\u0000"),
    "H037-overlong-slash": raw_named(b"\xc0\xaf"),
    "H037-cesu": raw_named(b"\xed\xa0\x80\xed\xb0\x80"),
    "H037-truncated": raw_named(b"\xe2\x82"),
    "H038-unknown-member": changed(unknown=1),
    "H039-schema-0": changed(schema=0),
    "H039-schema-2": changed(schema=2),
    "H039-schema-text": changed(schema="1"),
    "H039-no-schema": json.dumps({k: v for k, v in FOUND.items() if k != "schema"}).encode(),
    "H040-comment": PAYLOAD[:1] + b"/**/" + PAYLOAD[1:],
    "H040-trailing-comma": PAYLOAD[:-1] + b",}",
    "H040-single-quotes": PAYLOAD.replace(b'"', b"'"),
    **{f"H041-{v}": v.encode() for v in ("[]", '"x"', "7")},
    **{f"H044-{v}": changed(**{v: 1}) for v in ("__proto__", "__class__", "constructor")},
    "H045-no-services": services(0),
    "H045-empty-is-no-member": changed(services=[], empty=True),
}


@pytest.mark.parametrize("payload", SCHEMA.values(), ids=SCHEMA)
def test_a_signed_manifest_is_refused(tmp_path: Path, payload: bytes) -> None:
    assert payload != PAYLOAD
    began = time.process_time()
    assert judge_payload(payload, ask(tmp_path)) is Code.SCHEMA
    assert time.process_time() - began < 1.0


LIMIT = {"H046-65-services": services(65)}


@pytest.mark.parametrize("payload", LIMIT.values(), ids=LIMIT)
def test_a_manifest_over_a_limit_is_refused(tmp_path: Path, payload: bytes) -> None:
    assert judge_payload(payload, ask(tmp_path)) is Code.LIMIT


SAME = {
    "H047-as-it-is": PAYLOAD,  # or the rows above would prove nothing
    "H034-brackets-in-a-string": changed(**{"x-note": "[" * 1000}),
    "H038-x-member": changed(**{"x-note": 1}),
    "H047-other-order": json.dumps(dict(reversed(FOUND.items()))).encode(),
}


@pytest.mark.parametrize("payload", SAME.values(), ids=SAME)
def test_the_meaning_is_the_same(tmp_path: Path, payload: bytes) -> None:
    found = judge_payload(payload, ask(tmp_path))
    assert isinstance(found, StoredImage)
    assert found.manifest == MANIFEST


REQUIRED = [name for name in FOUND if name != "expires"]


@pytest.mark.parametrize("name", REQUIRED, ids=[f"H042-no-{name}" for name in REQUIRED])
def test_a_missing_member_is_named(tmp_path: Path, name: str) -> None:
    payload = json.dumps({k: v for k, v in FOUND.items() if k != name}).encode()
    assert judge_payload(payload, ask(tmp_path)) is Code.SCHEMA
    with pytest.raises(ImageRefusedError, match=rf"\b{name} is missing"):
        parse_manifest(payload)
