"""Headers of HTTP/2, with the examples of RFC 7541, appendix C."""

import pytest

from extsloader.adapters.containerd import hpack

STATUS_5 = b"\x40\x0bgrpc-status\x015"


def test_what_is_written_can_be_read() -> None:
    headers = {"te": "trailers", "containerd-namespace": "services.linuxkit"}
    assert hpack.decode(hpack.encode(headers.items())) == headers


def test_a_literal_with_a_name_of_its_own() -> None:  # C.2.1
    block = bytes.fromhex("400a637573746f6d2d6b65790d637573746f6d2d686561646572")
    assert hpack.decode(block) == {"custom-key": "custom-header"}


def test_packed_names_and_values() -> None:  # C.4.3, without what its table holds by then
    block = bytes.fromhex("408825a849e95ba97d7f8925a849e95bb8e8b4bf")
    assert hpack.decode(block) == {"custom-key": "custom-value"}


def test_entries_of_the_static_table_are_passed_over() -> None:  # C.2.4, C.4.1 and 6.3
    block = b"\x20\x88" + bytes.fromhex("418cf1e3c2e5f23a6ba0ab90f4ff") + STATUS_5
    assert hpack.decode(block) == {"grpc-status": "5"}


def test_a_text_longer_than_127_bytes() -> None:
    assert hpack.decode(b"\0\1a\x7f\x81\x01" + b"x" * 256) == {"a": "x" * 256}


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (STATUS_5[:-1], "end too early"),
        (STATUS_5[:5], "end too early"),
        (b"\x40", "end too early"),
        (b"\xff\x00", "a table that was refused"),
        (b"\x7f\x00\1a", "a table that was refused"),
        (b"\xff\xff\xff\xff\xff\xff\xff", "too long"),
    ],
)
def test_bad_blocks_are_refused(block: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        hpack.decode(block)
