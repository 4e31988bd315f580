"""One signed manifest, to be spoilt and judged by the code that runs on a device."""

import json
from pathlib import Path
from typing import Any

from extsloader.image.schema import encode_manifest
from extsloader.image.signing import sign
from extsloader.model.errors import ImageRefusedError
from extsloader.model.helper import Request
from extsloader.model.ids import Digest, SourceId
from extsloader.model.manifest import ImageSpec, StoredImage, Verity
from extsloader.model.reasons import Code
from extsloader.model.source import Source, SourceKind
from extsloader.verify.trust import accept
from tests.fakes import images

IMAGE = ImageSpec(
    size=2 * 4096,
    digest=Digest("d" * 64),
    format="squashfs",
    verity=Verity(
        algorithm="sha256",
        root_hash="0" * 64,
        salt="5a" * 32,
        block_size=4096,
        data_blocks=1,
        hash_offset=4096,
    ),
)
MANIFEST = images.manifest(IMAGE)
PAYLOAD = encode_manifest(MANIFEST)
ENVELOPE = sign(PAYLOAD, [images.private_key()])


def ask(tmp_path: Path) -> Request:
    keys = tmp_path / "keys"
    if not keys.exists():
        images.key_directory(keys, 1)
    source = Source(id=SourceId("/dev/sdb", "1"), kind=SourceKind.DEVICE, size=1 << 20)
    return Request(source=source, machine=images.MACHINE, keys=str(keys), wall=1_800_000_000.0)


def judge(raw: bytes, request: Request) -> StoredImage | Code:
    """What a device makes of it; any other exception than a refusal is a bug and gets out."""
    try:
        return accept(raw, request)
    except ImageRefusedError as error:
        return error.problem.code


def judge_payload(payload: bytes, request: Request) -> StoredImage | Code:
    """The same for a manifest that an accepted key did sign."""
    return judge(sign(payload, [images.private_key()]), request)


def changed(**members: Any) -> bytes:
    return json.dumps({**json.loads(PAYLOAD), **members}).encode()


def with_service(**members: Any) -> bytes:
    return changed(services=[{"name": "a", "bundle": "containers/services/a", **members}])
