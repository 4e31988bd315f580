"""The trailer is found from the front, in files and in larger media, and never believed blindly."""

import re
import struct
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extsloader.image.superblock import Read
from extsloader.image.trailer import (
    MAX_ENVELOPE,
    append_trailer,
    encode_trailer,
    find_end,
    read_trailer,
)
from extsloader.image.verity import BLOCK, read_superblock
from extsloader.model.errors import ImageRefusedError
from extsloader.model.reasons import Code
from tests.fakes import images

ENVELOPE = b'{"payload":"..."}'


def over(data: bytes) -> Read:
    return lambda offset, length: data[offset : offset + length]


def refusal(data: bytes, end: int = 0) -> tuple[Code, str]:
    with pytest.raises(ImageRefusedError) as caught:
        read_trailer(over(data), end)
    return caught.value.problem.code, caught.value.problem.message


@pytest.mark.parametrize("behind", [0, 1, 4096, 1 << 20])
def test_the_trailer_is_found_whatever_follows_it(tmp_path: Path, behind: int) -> None:
    path = tmp_path / "image"
    size = images.unsigned(path).size
    append_trailer(str(path), ENVELOPE)
    medium = over(path.read_bytes() + b"\xff" * behind)
    assert find_end(medium) == size
    found = read_trailer(medium, find_end(medium))
    assert found is not None
    assert (found.image_size, found.envelope) == (size, ENVELOPE)


def test_the_bytes_are_those_of_the_documentation(tmp_path: Path) -> None:
    path = tmp_path / "image"
    size = images.unsigned(path).size
    append_trailer(str(path), ENVELOPE)
    trailer = path.read_bytes()[size:]
    assert len(trailer) == BLOCK
    assert trailer[:8] == b"EXTSTRLR"
    assert struct.unpack_from("<IIQQ", trailer, 8) == (1, len(ENVELOPE), size, 0)
    assert trailer[32:64] == sha256(ENVELOPE).digest()
    assert trailer[64:].rstrip(b"\0") == ENVELOPE


def test_the_example_of_the_documentation_is_read_as_it_says() -> None:
    text = (Path(__file__).parents[3] / "docs" / "image-format.md").read_text()
    data = bytearray(1 << 14)
    for line in re.findall(r"^([0-9a-f]{8}): ((?:[0-9a-f]{4} ){8})", text, re.MULTILINE):
        offset, content = int(line[0], 16), bytes.fromhex(line[1])
        data[offset : offset + 16] = content
    read = over(bytes(data))
    assert find_end(read) == 0x2000
    verity = read_superblock(read, 0x1000)
    assert verity is not None
    assert (verity.data_blocks, verity.salt.hex()) == (1, "00112233445566778899aabbccddeeff")
    assert refusal(bytes(data), 0x2000)[1].endswith("checksum of the envelope does not match")


def test_signing_again_replaces_the_trailer(tmp_path: Path) -> None:
    path = tmp_path / "image"
    size = images.unsigned(path).size
    append_trailer(str(path), b"x" * 10_000)
    append_trailer(str(path), ENVELOPE)
    assert path.stat().st_size == size + BLOCK


def test_an_image_without_its_hash_tree_gets_no_trailer(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(images.squashfs())
    with pytest.raises(ImageRefusedError) as caught:
        append_trailer(str(path), ENVELOPE)
    assert caught.value.problem.code is Code.SIZE


def test_without_a_squashfs_there_is_no_end() -> None:
    with pytest.raises(ImageRefusedError) as caught:
        find_end(over(bytes(4096)))
    assert caught.value.problem.code is Code.FS_TYPE


@pytest.mark.parametrize("data", [b"", b"EXTSTRLR", bytes(4096), b"EXTSTRLX" + bytes(100)])
def test_where_no_trailer_is_none_is_found(data: bytes) -> None:
    assert read_trailer(over(data), 0) is None


def test_a_locator_that_lies_is_refused_with_what_was_expected() -> None:
    good = encode_trailer(8192, ENVELOPE)
    assert refusal(good)[1].endswith("belongs to an image of 8192 bytes, this one has 0")
    good = encode_trailer(0, ENVELOPE)
    assert refusal(good[:8] + struct.pack("<I", 2) + good[12:])[1].endswith("1 expected, 2 got")
    for length in (0, MAX_ENVELOPE + 1, 0xFFFFFFFF):
        data = good[:12] + struct.pack("<I", length) + good[16:]
        assert refusal(data)[0] is Code.LIMIT
    assert refusal(good[:70])[1].endswith("17 bytes expected, 6 got")


def test_every_flipped_bit_is_noticed() -> None:
    good = encode_trailer(0, ENVELOPE)[: 64 + len(ENVELOPE)]
    unread = range(24, 32)  # reserved
    for bit in range(8 * len(good)):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        if bit // 8 < 8:
            assert read_trailer(over(bytes(bad)), 0) is None
        elif bit // 8 not in unread:
            assert refusal(bytes(bad))[0] in (Code.LAYOUT, Code.LIMIT)


@given(st.binary(min_size=1, max_size=MAX_ENVELOPE), st.integers(0, 1 << 50))
def test_what_is_written_is_read_and_whole_blocks_long(envelope: bytes, end: int) -> None:
    data = encode_trailer(end, envelope)
    found = read_trailer(lambda offset, length: data[offset - end : offset - end + length], end)
    assert found is not None
    assert found.envelope == envelope
    assert len(data) % BLOCK == 0


@pytest.mark.parametrize("size", [0, MAX_ENVELOPE + 1])
def test_an_envelope_that_readers_would_refuse_is_not_written(size: int) -> None:
    with pytest.raises(ImageRefusedError) as caught:
        encode_trailer(0, bytes(size))
    assert caught.value.problem.code is Code.LIMIT


def test_the_reader_asks_for_bounded_reads_only() -> None:
    asked = []

    def read(offset: int, length: int) -> bytes:
        asked.append(length)
        return good[offset : offset + length]

    good = encode_trailer(0, bytes(MAX_ENVELOPE))
    read_trailer(read, 0)
    assert sum(asked) == 64 + MAX_ENVELOPE
