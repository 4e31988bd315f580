"""Where JSON parsers differ, ours says no."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extsloader.image.strictjson import MAX_INTEGER, depth, parse_object, shown


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "does not start with {"),
        (b" {}", "does not start with {"),
        (b"[]", "does not start with {"),
        (b'"x"', "does not start with {"),
        (b"\xef\xbb\xbf{}", "does not start with {"),
        ('{"a":1}'.encode("utf-16"), "does not start with {"),
        ('{"a":1}'.encode("utf-16-le"), "not JSON"),
        ('{"a":1}'.encode("utf-32-le"), "not JSON"),
        (b'{"a":"\xff"}', "not UTF-8 at byte 6"),
        (b'{"a":"\xc0\xaf"}', "not UTF-8"),
        (b'{"a":"\xed\xa0\x80"}', "not UTF-8"),
        (b'{"a":1}{}', "not JSON: extra data"),
        (b'{"a":1}\0', "not JSON"),
        (b'{"a":1,}', "not JSON"),
        (b"{'a':1}", "not JSON"),
        (b'{"a":1/**/}', "not JSON"),
        (b'{"a":1,"a":1}', "'a' appears twice"),
        (b'{"a":1,"\\u0061":1}', "'a' appears twice"),
        (b'{"b":[{"a":1,"a":2}]}', "'a' appears twice"),
        (b'{"x-a":1,"x-a":2}', "'x-a' appears twice"),
        (b'{"a":null}', "'a' is null"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":-Infinity}', "-Infinity"),
        (b'{"a":1e999}', "out of range"),
        (b'{"a":-0}', "-0"),
        (b'{"a":9007199254740992}', "larger than"),
        (b'{"a":' + b"9" * 5000 + b"}", "larger than"),
        (b'{"a":-' + b"9" * 4299 + b"}", "larger than"),
        (b'{"a":0.' + b"1" * 5000 + b"}", "out of range"),
        (b'{"a":"\\u0000"}', "NUL"),
        (b'{"a":["\\ud800"]}', "surrogate"),
        (b'{"\\udfff":1}', "surrogate"),
        (b'{"a":' + b"[" * 200_000, "nested more than 16"),
        (b'{"a":' + b"[" * 16 + b"]" * 16 + b"}", "nested more than 16"),
        (b"{" + b" " * 1000 + b'"a"', "not JSON"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)) as caught:
        parse_object(raw)
    assert type(caught.value) is ValueError


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b"{}", {}),
        (b'{"a":' + b"[" * 15 + b"]" * 15 + b"}", None),
        (b'{"a":"' + b"[" * 100 + b'"}', {"a": "[" * 100}),
        (b'{"a":"\\"[[[[[[[[[[[[[[[[[[[[\\\\"}', {"a": '"[[[[[[[[[[[[[[[[[[[[\\'}),
        (b'{"a":"\\ud83d\\ude00"}', {"a": "\U0001f600"}),
        (b'{"a":9007199254740991,"b":-1,"c":0.5}', {"a": MAX_INTEGER, "b": -1, "c": 0.5}),
        (b'{"x-note":{"y":1},"a":{"x-b":1,"c":2}}', {"a": {"c": 2}}),
    ],
)
def test_plain_json_is_read(raw: bytes, found: object) -> None:
    parsed = parse_object(raw)
    assert found is None or parsed == found


_VALUES = st.recursive(
    st.booleans() | st.integers(-MAX_INTEGER, MAX_INTEGER) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=3),
    max_leaves=10,
)


def read(raw: bytes) -> object:
    """What is in the bytes; the sentence where they are refused."""
    try:
        return parse_object(raw)
    except ValueError as error:
        return str(error)


@given(st.dictionaries(st.text("abc"), _VALUES, max_size=3))
def test_other_readers_agree_with_what_is_accepted(value: dict[str, object]) -> None:
    raw = json.dumps(value).encode()
    assert read(raw) == value or "NUL" in str(read(raw))


@given(st.binary(max_size=60))
def test_bytes_give_an_object_or_a_sentence(tail: bytes) -> None:
    assert isinstance(read(b"{" + tail), dict | str)


def test_depth_counts_the_deepest_place() -> None:
    assert depth(b"{}") == 1
    assert depth(b'{"a":[[],{"b":[1]}]}') == 4
    assert depth(b'{"a[[[":"\\"{"}') == 1


def test_text_from_outside_is_short_and_escaped() -> None:
    assert shown("\x1b[2J\n") == "'\\x1b[2J\\n'"
    assert len(shown("x" * 1000)) < 50
