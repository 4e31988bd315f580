"""Protocol buffers on the wire."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extsloader.adapters.containerd.protobuf import Reader, encode


def test_the_example_of_the_encoding_guide() -> None:
    assert encode({1: 150}) == b"\x08\x96\x01"
    assert encode({2: "testing"}) == b"\x12\x07testing"


def test_what_is_not_set_is_left_out_and_read_as_nothing() -> None:
    assert encode({1: 0, 2: "", 3: b""}) == b""
    empty = Reader(b"")
    assert (empty.number(1), empty.text(2), empty.messages(3)) == (0, "", [])
    assert empty.message(3).number(1) == 0


@given(number=st.integers(1, 2**64 - 1), text=st.text())
def test_what_is_written_can_be_read(number: int, text: str) -> None:
    inner = encode({1: number, 2: text})
    found = Reader(encode({7: inner}) + encode({7: inner}))
    assert [(m.number(1), m.text(2)) for m in found.messages(7)] == [(number, text)] * 2
    assert found.message(7).number(1) == number


def test_fields_of_fixed_size_are_skipped() -> None:
    assert Reader(b"\x09" + bytes(8) + b"\x15" + bytes(4) + b"\x18\x05").number(3) == 5


@given(st.binary())
def test_no_bytes_lead_to_anything_but_a_refusal(raw: bytes) -> None:
    with suppress(ValueError):
        Reader(raw)


@pytest.mark.parametrize("raw", [b"\x08", b"\x0a\x05abc", b"\x08" + b"\xff" * 11])
def test_a_message_that_ends_too_early_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="ends too early"):
        Reader(raw)
