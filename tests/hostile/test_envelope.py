"""Rows H001 to H009 and H029: what is around the manifest (H010 to H028: test_hostile_keys.py)."""

import json
from base64 import b64encode
from pathlib import Path

import pytest

from extsloader.image.envelope import PAYLOAD_TYPE
from extsloader.image.trailer import MAX_ENVELOPE
from extsloader.model.manifest import StoredImage
from extsloader.model.reasons import Code
from tests.hostile.payloads import (
    ENVELOPE,
    MANIFEST,
    PAYLOAD,
    ask,
    changed,
    judge,
    judge_payload,
)

pytestmark = pytest.mark.hostile

TEXT = ENVELOPE.decode()
GOOD = f'"payload":"{b64encode(PAYLOAD).decode()}"'
EVIL = f'"payload":"{b64encode(changed(sequence=9)).decode()}"'
ESCAPED = EVIL.replace("payload", r"p\u0061yload")
COMPATIBLE = json.loads(PAYLOAD)["compatible"]


def typed(value: object) -> bytes:
    return json.dumps({**json.loads(ENVELOPE), "payloadType": value}).encode()


def spelt(payload: str) -> bytes:
    return json.dumps({**json.loads(ENVELOPE), "payload": payload}).encode()


ROWS = {
    "H001-empty": b"",
    "H001-one-byte": b"{",
    "H001-only-spaces": b" " * 100,
    "H003-trailing-garbage": ENVELOPE + b"x",
    "H003-second-object": ENVELOPE + ENVELOPE,
    "H003-nuls": ENVELOPE + bytes(8),
    "H004-bom": b"\xef\xbb\xbf" + ENVELOPE,
    "H004-utf-16-le": TEXT.encode("utf-16-le"),
    "H004-utf-16-be": TEXT.encode("utf-16-be"),
    "H004-utf-32": TEXT.encode("utf-32"),
    "H005-first-good-then-evil": TEXT.replace(GOOD, f"{GOOD},{EVIL}").encode(),
    "H005-first-evil-then-good": TEXT.replace(GOOD, f"{EVIL},{GOOD}").encode(),
    "H006-capital": TEXT.replace(GOOD, f"{GOOD},{EVIL.replace('pay', 'Pay')}").encode(),
    "H006-capitals": TEXT.replace(GOOD, f"{GOOD},{EVIL.replace('payload', 'PAYLOAD')}").encode(),
    "H006-escaped": TEXT.replace(GOOD, f"{GOOD},{ESCAPED}").encode(),
    "H007-newline": spelt(b64encode(PAYLOAD).decode() + "\n"),
    "H007-space": spelt(" " + b64encode(PAYLOAD).decode()),
    "H007-other-alphabet": spelt("-_8="),
    "H007-no-padding": spelt("eyA"),
    "H007-more-padding": spelt("eyA=="),
    "H007-trailing-bits": spelt("eyB="),
    "H009-other": typed("application/json"),
    "H009-charset": typed(f"{PAYLOAD_TYPE}; charset=utf-8"),
    "H009-capitals": typed(PAYLOAD_TYPE.upper()),
    "H009-empty": typed(""),
    "H009-array": typed([PAYLOAD_TYPE]),
}


@pytest.mark.parametrize("raw", ROWS.values(), ids=ROWS)
def test_a_malformed_envelope_is_refused(tmp_path: Path, raw: bytes) -> None:
    assert raw != ENVELOPE
    assert judge(raw, ask(tmp_path)) is Code.ENVELOPE


@pytest.mark.parametrize("size", [MAX_ENVELOPE], ids=["H002-at-and-above-the-limit"])
def test_the_size_is_limited(tmp_path: Path, size: int) -> None:
    found = judge(ENVELOPE.ljust(size), ask(tmp_path))
    assert isinstance(found, StoredImage)
    assert found.manifest == MANIFEST
    assert judge(ENVELOPE.ljust(size + 1), ask(tmp_path)) is Code.LIMIT


@pytest.mark.parametrize(
    ("raw", "code"),
    [(spelt(""), Code.SIGNATURE), (None, Code.SCHEMA)],
    ids=["H008-empty-unsigned", "H008-empty-signed"],
)
def test_an_empty_payload(tmp_path: Path, raw: bytes | None, code: Code) -> None:
    asked = ask(tmp_path)
    assert (judge_payload(b"", asked) if raw is None else judge(raw, asked)) is code


@pytest.mark.parametrize(
    "compatible",
    [{"arch": "arm64"}, {"hypervisors": ["xen"]}, {"device_ids": ["another"]}],
    ids=["H029-arch", "H029-hypervisor", "H029-device"],
)
def test_an_image_for_another_device(tmp_path: Path, compatible: dict[str, object]) -> None:
    payload = changed(compatible={**COMPATIBLE, **compatible})
    assert judge_payload(payload, ask(tmp_path)) is Code.INCOMPATIBLE
