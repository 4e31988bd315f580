"""Rows H023 and H024: every small edit of what is signed, and of what leads to it."""

from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from extsloader.image.trailer import Trailer, encode_trailer, read_trailer
from extsloader.model.errors import ImageRefusedError
from extsloader.model.helper import Request
from extsloader.model.manifest import StoredImage
from extsloader.model.reasons import Code
from extsloader.verify.pipeline import verify_in_place
from tests.fakes import images
from tests.hostile.payloads import ENVELOPE, MANIFEST, PAYLOAD, ask, judge

pytestmark = pytest.mark.hostile

Edits = Callable[[bytes], Iterator[bytes]]

END = 8192
TRAILER = encode_trailer(END, ENVELOPE)[: 64 + len(ENVELOPE)]
RESERVED = slice(24, 32)  # written as zeros, not read (docs/image-format.md)


def flips(raw: bytes) -> Iterator[bytes]:
    for at in range(len(raw)):
        for bit in range(8):
            yield raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :]


def byte_edits(raw: bytes) -> Iterator[bytes]:
    """Delete, double and swap each byte, and cut there; what changes nothing is left out."""
    for at in range(len(raw)):
        head, byte, tail = raw[:at], raw[at : at + 1], raw[at + 1 :]
        found = (head + tail, head + byte * 2 + tail, head + tail[:1] + byte + tail[1:], head)
        yield from (edit for edit in found if edit != raw)


EDITS = pytest.mark.parametrize("edits", [flips, byte_edits], ids=["H023-bits", "H024-bytes"])


@EDITS
def test_no_edit_of_an_envelope_changes_what_is_accepted(tmp_path: Path, edits: Edits) -> None:
    """The key id alone may differ: it is a hint, and what was signed is the same."""
    start = ENVELOPE.index(b'"keyid":"') + len(b'"keyid":"')
    end = ENVELOPE.index(b'"', start)
    asked, accepted = ask(tmp_path), 0
    for raw in edits(ENVELOPE):
        found = judge(raw, asked)
        if isinstance(found, StoredImage):
            accepted += 1
            assert found.manifest == MANIFEST
            assert raw.startswith(ENVELOPE[:start])
            assert raw.endswith(ENVELOPE[end:])
    assert accepted  # or the good envelope is none, and all of this proves nothing


@EDITS
def test_no_edit_of_a_manifest_keeps_its_signature(tmp_path: Path, edits: Edits) -> None:
    asked, signed = ask(tmp_path), b64encode(PAYLOAD)
    for payload in edits(PAYLOAD):
        assert judge(ENVELOPE.replace(signed, b64encode(payload)), asked) is Code.SIGNATURE


@EDITS
def test_no_edit_of_a_trailer_gives_another_envelope(edits: Edits) -> None:
    for raw in edits(TRAILER):
        found = read_edited(raw)
        if found is not None:
            assert found == Trailer(image_size=END, envelope=ENVELOPE)
            assert raw[: RESERVED.start] == TRAILER[: RESERVED.start]
            assert raw[RESERVED.stop :].startswith(TRAILER[RESERVED.stop :])


def read_edited(raw: bytes) -> Trailer | None:
    try:
        return read_trailer(lambda offset, size: raw[offset - END :][:size], END)
    except ImageRefusedError:
        return None


@EDITS
def test_no_edit_of_a_superblock_is_accepted(tmp_path: Path, edits: Edits) -> None:
    path = tmp_path / "image"
    images.signed(path, size=4096)
    images.key_directory(tmp_path / "keys", 1)
    good = path.read_bytes()
    for head in edits(good[:96]):
        path.write_bytes(head + good[96:])
        with pytest.raises(ImageRefusedError):
            verify_in_place(request(path), lambda _done, _total: None)
    path.write_bytes(good)
    verify_in_place(request(path), lambda _done, _total: None)


def request(path: Path) -> Request:
    return replace(ask(path.parent), source=images.file_source(path))
