"""Manifests and envelopes for a test to spoil, judged the whole way as on a device."""

import json
from base64 import b64encode
from typing import Any

import pytest

from extsloader.image.envelope import PAYLOAD_TYPE
from extsloader.image.schema import encode_manifest
from extsloader.image.signing import pae
from extsloader.image.verity import BLOCK, image_size
from extsloader.model.errors import ImageRefusedError
from extsloader.model.helper import Request
from extsloader.model.ids import Digest
from extsloader.model.manifest import ImageSpec, Manifest, StoredImage, Verity
from extsloader.model.reasons import Code
from extsloader.verify.trust import accept
from tests.fakes import images

Json = dict[str, Any]
NOW = 1_780_000_000.0  # May 2026

GOOD: Manifest = images.manifest(
    ImageSpec(
        size=image_size(1),
        digest=Digest("a" * 64),
        format="squashfs",
        verity=Verity(
            algorithm="sha256",
            root_hash="b" * 64,
            salt="00ff",
            block_size=BLOCK,
            data_blocks=1,
            hash_offset=BLOCK,
        ),
    )
)
PAYLOAD = encode_manifest(GOOD)


def manifest(**changes: object) -> Json:
    """The good manifest with other members at `services__0__stop__grace`; `...` removes one."""
    found: Json = json.loads(PAYLOAD)
    for path, value in changes.items():
        *parents, last = (int(part) if part.isdigit() else part for part in path.split("__"))
        target: Any = found
        for part in parents:
            target = target[part] if isinstance(part, int) else target.setdefault(part, {})
        if value is ...:
            del target[last]
        else:
            target[last] = value
    return found


def services(needs: dict[str, list[str]], kind: str = "requires") -> list[Json]:
    return [
        {"name": name, "bundle": f"containers/services/{name}", kind: others}
        for name, others in needs.items()
    ]


def envelope(payload: bytes, /, **changes: object) -> Json:
    """An envelope as JSON, signed by key 1."""
    value = b64encode(images.private_key(1).sign(pae(payload))).decode()
    found = {
        "payload": b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": "k", "sig": value}],
    }
    return found | changes


def sealed(payload: bytes | Json) -> bytes:
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return json.dumps(envelope(raw)).encode()


def refusal(raw: bytes, asked: Request) -> tuple[Code, str]:
    with pytest.raises(ImageRefusedError) as caught:
        accept(raw, asked)
    return caught.value.problem.code, caught.value.problem.message


def judge(payload: bytes | Json, asked: Request) -> Code | None:
    """The verdict on a manifest that is signed well; None when it is accepted."""
    try:
        accept(sealed(payload), asked)
    except ImageRefusedError as refused:
        return refused.problem.code
    return None


def accepted(payload: bytes | Json, asked: Request) -> StoredImage:
    return accept(sealed(payload), asked)
