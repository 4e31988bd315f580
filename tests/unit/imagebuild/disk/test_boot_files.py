import struct
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from extsloader.imagebuild.disk.boot_files import read_sections, with_words
from extsloader.imagebuild.disk.qemu import Kernel


def test_sections_are_found_by_name_without_their_padding() -> None:
    program = make_program({".linux": b"kernel", ".cmdline": b"quiet\0"})
    assert read_sections(program) == {".linux": b"kernel", ".cmdline": b"quiet\0"}


@given(st.binary(max_size=300), st.integers(0, 300))
def test_what_is_no_program_has_no_sections(garbage: bytes, cut: int) -> None:
    assert read_sections(garbage.replace(b"PE", b"__")) == {}
    whole = make_program({".linux": b"kernel"})
    assert read_sections(whole[: min(cut, 0x80)]) == {}


def test_more_words_come_last_and_therefore_win() -> None:
    kernel = Kernel(linux=Path("l"), initrd=Path("i"), cmdline="console=ttyS0 quiet")
    assert with_words(kernel, "loglevel=7").cmdline == "console=ttyS0 quiet loglevel=7"


def make_program(sections: dict[str, bytes]) -> bytes:
    """A PE file with an optional header of 16 bytes and sections padded to 512."""
    start, optional, align = 0x40, 16, 512
    head = bytearray(align * 2)
    head[0x3C:0x40] = struct.pack("<I", start)
    struct.pack_into(
        "<4sHHIIIHH", head, start, b"PE\0\0", 0x8664, len(sections), 0, 0, 0, optional, 0
    )
    body = b""
    for number, (name, content) in enumerate(sections.items()):
        at = start + 24 + optional + number * 40
        padded = content.ljust(align, b"\xcc")
        where = len(head) + len(body)
        struct.pack_into(
            "<8sIIII", head, at, name.encode(), len(content), 0x1000, len(padded), where
        )
        body += padded
    return bytes(head) + body
