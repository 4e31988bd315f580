"""Made-up envelopes and manifests: each is read, or refused with a code and a short sentence."""

import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from extsloader.image.envelope import parse_envelope
from extsloader.image.schema import encode_manifest, parse_manifest
from extsloader.image.strictjson import parse_object
from extsloader.image.trailer import MAX_ENVELOPE, encode_trailer, find_end, read_trailer
from extsloader.model.errors import ImageRefusedError
from extsloader.model.reasons import Code
from tests.fakes import images
from tests.fuzz.budget import Media, fuzz, spoiled
from tests.hostile.judge import PAYLOAD, Json, manifest, sealed

ENVELOPE = sealed(PAYLOAD)


def outcome(read: Callable[[], Any], *codes: Code) -> Any:
    """What was read; None for a refusal that people can be shown."""
    try:
        return read()
    except ImageRefusedError as refused:
        problem = refused.problem
    assert problem.code in codes
    assert len(problem.message) < 5000
    assert problem.message.isprintable()
    return None


def test_envelopes() -> None:
    def attempt(raw: bytes) -> None:
        codes = (Code.ENVELOPE, Code.LIMIT, Code.THRESHOLD)
        outcome(lambda: parse_envelope(raw), *codes)

    fuzz(spoiled(ENVELOPE) | st.binary(max_size=200), attempt)


MANIFEST_CODES = (Code.SCHEMA, Code.PATH, Code.LIMIT, Code.DAG)


def read_and_write(raw: bytes) -> None:
    found = outcome(lambda: parse_manifest(raw), *MANIFEST_CODES)
    if found is not None:
        assert parse_manifest(encode_manifest(found)) == found


def test_bytes_of_manifests() -> None:
    fuzz(spoiled(PAYLOAD), read_and_write)


def json_values() -> st.SearchStrategy[Any]:
    words = st.sampled_from(["", "a", "b", "self", "2026-01-01T00:00:00Z", "exec", "x-a", "\0"])
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | words | st.text(max_size=9)
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
        max_leaves=8,
    )


@st.composite
def changed_manifests(draw: st.DrawFn) -> Json:
    """The good manifest with other values anywhere in it, and members that it does not have."""
    found = manifest(services__0__readiness={"kind": "exec", "command": ["x"]})
    for _ in range(draw(st.integers(1, 3))):
        place: Any = found
        while isinstance(place, dict | list) and place:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = draw(st.sampled_from(keys))
            if not isinstance(place[key], dict | list) or draw(st.integers(0, 3)) == 0:
                place[key] = draw(json_values())
                break
            place = place[key]
    return found


def test_values_of_manifests() -> None:
    fuzz(changed_manifests(), lambda found: read_and_write(json.dumps(found).encode()))


def test_strict_json() -> None:
    def attempt(raw: bytes) -> None:
        try:
            found = parse_object(raw)
        except ValueError as error:
            assert type(error) is ValueError  # noqa: PT017 - a reader's own error is a slip
            return
        # What is accepted is the same to a reader that is not strict.
        assert found == without_notes(json.loads(raw))

    start = b'{"a":[1,-2.5e3,true,"\\ud83d\\ude00"],"x-b":{"c":{}}}'
    fuzz(spoiled(start) | st.binary(max_size=60).map(lambda tail: b"{" + tail), attempt, 600)


def without_notes(value: Any) -> Any:
    if isinstance(value, dict):
        return {n: without_notes(v) for n, v in value.items() if not n.startswith("x-")}
    return [without_notes(v) for v in value] if isinstance(value, list) else value


def test_trailers() -> None:
    good = images.squashfs(100)
    end = 12288
    image = good[:4096].ljust(end, b"\0") + encode_trailer(end, ENVELOPE)

    def attempt(data: bytes) -> None:
        medium = Media(data, most=96 + 64 + MAX_ENVELOPE)
        found_end = outcome(lambda: find_end(medium.read), Code.FS_TYPE)
        if found_end is not None:
            codes = (Code.LAYOUT, Code.LIMIT)
            found = outcome(lambda: read_trailer(medium.read, found_end), *codes)
            assert found is None or found.image_size == found_end

    edits = spoiled(image[end:], 64).map(lambda tail: image[:end] + tail)
    fuzz(edits | spoiled(image, 96), attempt)
