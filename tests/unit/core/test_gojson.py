"""Bytes that were recorded from Go."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extsloader.core.gojson import encode


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ('mount failed: <x> & "y"', rb'"mount failed: \u003cx\u003e \u0026 \"y\""'),
        ("\u2028\u2029", rb'"\u2028\u2029"'),
        ("Käse", '"Käse"'.encode()),
        ("\n\t\r\\\x01\x7f", b'"\\n\\t\\r\\\\\\u0001\x7f"'),
        ("bad \udcff", rb'"bad \ufffd"'),
        (None, b"null"),
        ({"State": 1, "Error": ""}, b'{"State":1,"Error":""}'),
    ],
)
def test_text_is_written_as_go_writes_it(value: object, written: bytes) -> None:
    assert encode(value) == written


def test_a_map_is_sorted_and_a_struct_is_not() -> None:
    value = {"b": {"z": 1, "a": 2}, "a": 3}
    assert encode(value) == b'{"b":{"z":1,"a":2},"a":3}'
    assert encode(value, sort=True) == b'{"a":3,"b":{"a":2,"z":1}}'


@given(st.text())
def test_nothing_but_the_undecodable_is_lost(text: str) -> None:
    clean = text.encode("utf-8", "ignore").decode()
    assert json.loads(encode(clean)) == clean
    assert not set(encode(text)) & set(b"<>&")
