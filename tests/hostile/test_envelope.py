"""Envelopes that can be read in two ways, or that changed by a bit on their way."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from extsloader.image.envelope import PAYLOAD_TYPE, parse_envelope
from extsloader.image.schema import parse_manifest
from extsloader.image.superblock import SQUASHFS_SIZE
from extsloader.image.trailer import encode_trailer, read_trailer
from extsloader.model.errors import ImageRefusedError
from extsloader.model.helper import Request
from extsloader.model.manifest import StoredImage
from extsloader.model.reasons import Code
from extsloader.verify import trust
from extsloader.verify.keys import load_keys
from extsloader.verify.offline import verify_file
from extsloader.verify.pipeline import verify
from extsloader.verify.trust import accept
from tests.fakes import images
from tests.hostile.judge import (
    GOOD,
    NOW,
    PAYLOAD,
    envelope,
    judge,
    manifest,
    refusal,
    sealed,
    services,
)

pytestmark = pytest.mark.hostile

Record = Callable[[str, object], None]
RAW = sealed(PAYLOAD)


@pytest.mark.parametrize("raw", [b"", b"{", b" ", b"   ", b"\0"])
def test_h001_next_to_nothing(asked: Request, raw: bytes) -> None:
    assert refusal(raw, asked)[0] is Code.ENVELOPE


def test_h002_the_limit_of_size_is_exact(asked: Request) -> None:
    assert accept(RAW.ljust(65536), asked).manifest == GOOD
    assert refusal(RAW.ljust(65537), asked)[0] is Code.LIMIT


@pytest.mark.parametrize("tail", [b"x", b"{}", RAW, b"\0", bytes(100), b"\xff", b","])
def test_h003_something_behind_it(asked: Request, tail: bytes) -> None:
    assert refusal(RAW + tail, asked)[0] is Code.ENVELOPE


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"]
)
def test_h004_another_encoding(asked: Request, encoding: str) -> None:
    assert refusal(RAW.decode().encode(encoding), asked)[0] is Code.ENVELOPE


def test_h005_two_payloads_in_either_order(asked: Request) -> None:
    good, bad = (
        f'"payload": {json.dumps(envelope(payload)["payload"])}'
        for payload in (PAYLOAD, json.dumps(manifest(sequence=9)).encode())
    )
    for both in (f"{good}, {bad}", f"{bad}, {good}", f"{good}, {good}"):
        assert refusal(RAW.decode().replace(good, both).encode(), asked)[0] is Code.ENVELOPE


@pytest.mark.parametrize(
    "name", ["Payload", "PAYLOAD", "payload ", r"p\u0061yload", "payl\u03bfad"]
)
def test_h006_names_that_some_readers_take_for_the_payload(asked: Request, name: str) -> None:
    payload = json.dumps(envelope(PAYLOAD)["payload"])
    raw = f'{{"{name}":{payload},'.encode() + RAW[1:]
    assert refusal(raw, asked)[0] is Code.ENVELOPE


@pytest.mark.parametrize("name", ["payload", "sig"])
@pytest.mark.parametrize(
    "spell",
    [
        lambda text: text[:4] + "\n" + text[4:],
        lambda text: text[:4] + " " + text[4:],
        lambda text: text[:4] + "-_-_" + text[4:],
        lambda text: text + "=",
        lambda text: text + "====",
        lambda text: text.rstrip("=") + "A",
        lambda text: text[:-3] + chr(ord(text[-3]) + 1) + text[-2:],
    ],
    ids=["newline", "space", "other alphabet", "padding", "empty group", "none", "unused bits"],
)
def test_h007_base64_has_one_spelling(
    asked: Request, name: str, spell: Callable[[str], str]
) -> None:
    payload = PAYLOAD + b" " * ((1 - len(PAYLOAD)) % 3)  # two bits and more are left over
    found = envelope(payload)
    place = found if name == "payload" else found["signatures"][0]
    assert place[name].endswith("==")
    accept(json.dumps(found).encode(), asked)
    place[name] = spell(place[name])
    assert refusal(json.dumps(found).encode(), asked)[0] is Code.ENVELOPE


def test_h007_padding_left_out(asked: Request) -> None:
    found = envelope(PAYLOAD)
    found["signatures"][0]["sig"] = found["signatures"][0]["sig"].rstrip("=")
    assert refusal(json.dumps(found).encode(), asked)[0] is Code.ENVELOPE


def test_h008_a_payload_of_no_bytes(asked: Request) -> None:
    assert judge(b"", asked) is Code.SCHEMA
    raw = json.dumps(envelope(PAYLOAD, payload="")).encode()
    assert refusal(raw, asked)[0] is Code.SIGNATURE


@pytest.mark.parametrize(
    "kind", ["text/plain", f"{PAYLOAD_TYPE};charset=utf-8", PAYLOAD_TYPE.upper(), "", [], 1, {}]
)
def test_h009_another_payload_type(asked: Request, kind: object) -> None:
    raw = json.dumps(envelope(PAYLOAD, payloadType=kind)).encode()
    assert refusal(raw, asked)[0] is Code.ENVELOPE


def flips(raw: bytes) -> Iterator[bytes]:
    for bit in range(8 * len(raw)):
        bad = bytearray(raw)
        bad[bit // 8] ^= 1 << bit % 8
        yield bytes(bad)


def byte_edits(raw: bytes) -> Iterator[bytes]:
    for at in range(len(raw)):
        head, byte, tail = raw[:at], raw[at : at + 1], raw[at + 1 :]
        yield head
        yield head + tail
        yield head + byte + byte + tail
        yield head + tail[:1] + byte + tail[1:]
        yield from (head + other + tail for other in (b'"', b"0"))


def values(raw: bytes) -> Iterator[bytes]:
    for at, old in enumerate(raw):
        head, tail = raw[:at], raw[at + 1 :]
        yield from (head + bytes([new]) + tail for new in range(256) if new != old)


EDITS = [
    pytest.param(flips, id="h023 bit"),
    pytest.param(byte_edits, id="h024 byte"),
    # These take long on a busy machine, and nothing in them waits.
    pytest.param(values, id="h024 value", marks=pytest.mark.timeout(900)),
]
Edits = Callable[[bytes], Iterator[bytes]]
SHARE = 31  # one in so many of all values is tried where nobody asks for the hostile rows
# Nothing that may be left out: each byte is 255 cases.
SMALL = json.dumps(
    manifest(
        services=services({"a": []}),
        expires=...,
        compatible={"arch": "amd64", "hypervisors": ["kvm"]},
    ),
    separators=(",", ":"),
).encode()
SIGNED = sealed(SMALL)


@pytest.fixture
def edited(edits: Edits, request: pytest.FixtureRequest) -> Edits:
    """The edits of a kind: all of them, or a share that has cases of each place and value."""
    whole = edits is not values or request.config.pluginmanager.has_plugin("tests.hostile.rows")
    return edits if whole else lambda raw: islice(edits(raw), 0, None, SHARE)


@pytest.fixture
def quick(asked: Request, monkeypatch: pytest.MonkeyPatch) -> Request:
    """The same device, which reads its key files once and not for each of many thousand cases."""
    ring = load_keys(asked.keys)
    monkeypatch.setattr(trust, "load_keys", lambda _: ring)
    return asked


def survivors(
    variants: Iterator[bytes], verdict: Callable[[bytes], object], record: Record
) -> list[object]:
    """What is accepted all the same; anything but a refusal with a code is raised."""
    cases, found = 0, []
    for cases, bad in enumerate(variants, 1):  # noqa: B007 - counted
        try:
            found.append(verdict(bad))
        except ImageRefusedError:
            continue
    record("cases", cases)
    return found


@pytest.mark.parametrize("edits", EDITS)
def test_an_envelope_edited_in_one_place(
    quick: Request, edited: Edits, record_property: Record
) -> None:
    """The key id is a hint, and white space between members means nothing: those may differ."""
    same = accept(SIGNED, quick)
    found = survivors(edited(SIGNED), lambda bad: accept(bad, quick), record_property)
    assert all(image == same for image in found)


@pytest.mark.parametrize("edits", EDITS)
def test_a_manifest_edited_in_one_place_has_no_signature(
    asked: Request, edited: Edits, record_property: Record
) -> None:
    signed, ring = parse_envelope(SIGNED), load_keys(asked.keys)
    assert trust.check_signatures(signed, ring)

    def verdict(bad: bytes) -> object:
        return trust.check_signatures(replace(signed, payload=bad), ring)

    variants = (bad for bad in edited(SMALL) if bad != SMALL)
    assert not survivors(variants, verdict, record_property)


@pytest.mark.parametrize("edits", EDITS)
def test_a_manifest_edited_in_one_place_and_signed_is_judged(
    edited: Edits, record_property: Record
) -> None:
    """Its signer may mean another thing; the reader has to come to a verdict."""
    assert survivors(edited(SMALL), parse_manifest, record_property)


@pytest.mark.parametrize("edits", EDITS)
def test_a_trailer_edited_in_one_place(edited: Edits, record_property: Record) -> None:
    """Eight bytes are reserved and not looked at; nothing else may differ."""
    trailer = encode_trailer(0, SIGNED)[: 64 + len(SIGNED)]

    def verdict(bad: bytes) -> bytes:
        found = read_trailer(lambda offset, length: bad[offset : offset + length], 0)
        if found is None:
            raise ImageRefusedError(Code.ENVELOPE, "no trailer")
        assert bad[:24] + bad[32:] == trailer[:24] + trailer[32:] or bad.startswith(trailer)
        return found.envelope

    assert set(survivors(edited(trailer), verdict, record_property)) == {SIGNED}


@pytest.mark.parametrize("edits", EDITS)
def test_a_superblock_edited_in_one_place(
    run: Path, asked: Request, edited: Edits, record_property: Record
) -> None:
    """In memory: a file is written for each case, and a busy disk would make that take minutes."""
    path = run / "image"
    images.signed(path, size=100)
    content = path.read_bytes()

    def verdict(bad: bytes) -> StoredImage:
        path.write_bytes(bad + content[SQUASHFS_SIZE:])
        found = verify_file(str(path), asked.keys)
        if isinstance(found, StoredImage):
            return found
        raise ImageRefusedError(found.code, found.message)

    good = content[:SQUASHFS_SIZE]
    variants = (bad for bad in edited(good) if bad != good)
    assert not survivors(variants, verdict, record_property)
    assert verdict(good).key_ids


def test_h029_a_good_image_for_another_product(asked: Request) -> None:
    for member, other in (("arch", "arm64"), ("hypervisors", ["xen"]), ("device_ids", ["other"])):
        assert judge(manifest(**{f"compatible__{member}": other}), asked) is Code.INCOMPATIBLE
    assert judge(manifest(name="another-channel"), asked) is None


def test_h030_an_envelope_that_reads_differently_the_second_time(
    tmp_path: Path, asked: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "image"
    good = images.signed(path, size=100)
    seen: set[int] = set()
    honest = os.preadv

    def lie(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        done = honest(descriptor, buffers, offset)
        for at in range(max(good.image.size, offset), offset + done):
            buffers[0][at - offset] ^= 0xFF if at in seen else 0
            seen.add(at)
        return done

    monkeypatch.setattr(os, "preadv", lie)
    source = images.file_source(path)
    request = Request(
        source=source, keys=asked.keys, store=images.store_in(tmp_path), wall=NOW, reserve=0
    )
    stored, descriptor = verify(request, lambda _done, _total: None)
    os.close(descriptor)
    assert seen
    assert stored.manifest == good
    assert Path(stored.path).read_bytes() == path.read_bytes()
