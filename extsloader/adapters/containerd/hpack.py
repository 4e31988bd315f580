"""Header compression of HTTP/2 (RFC 7541), as much of it as one short call needs.

We announce a dynamic table of size 0, so there is none on either side. Of the static table nobody
here asks for anything: what gRPC says about a call is in headers that it does not hold.
"""

from collections.abc import Iterable, Iterator

STATIC_ENTRIES = 61  # appendix A

# Appendix B is a canonical code: sorted by length, then by symbol, each code follows from the one
# before. Symbols that a gRPC message can have, by length in bits; it escapes all others.
_SYMBOLS = {
    5: "012aceiost",
    6: " %-./3456789=A_bdfghlmnpru",
    7: ":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz",
    8: "&*,;XZ",
    10: '!"()?',
    11: "'+|",
    12: "#>",
    13: "\0$@[]~",
    14: "^}",
    15: "<`{",
    19: "\\",
}


def _codes() -> Iterator[tuple[tuple[int, int], str]]:
    code, before = 0, 0
    for length, symbols in _SYMBOLS.items():
        code <<= length - before
        for symbol in symbols:
            yield (length, code), symbol
            code += 1
        before = length


_CODES = dict(_codes())


def encode(headers: Iterable[tuple[str, str]]) -> bytes:
    """Literals without indexing (6.2.2), names in full; a text must be below 127 bytes."""
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in headers)


def _text(text: str) -> bytes:
    return bytes([len(text)]) + text.encode("ascii")


def decode(block: bytes) -> dict[str, str]:
    """Headers with a name of their own; those of the static table are left out.

    Raises ValueError.
    """
    found = {}
    try:
        while block:
            first = block[0]
            if first & 0x80:  # 6.1: a whole entry of a table
                index, block = _number(block, 7)
                _check(index)
            elif first & 0x20 and not first & 0x40:  # 6.3: size of the dynamic table
                _, block = _number(block, 5)
            else:  # 6.2: a literal
                index, block = _number(block, 6 if first & 0x40 else 4)
                _check(index)
                name, block = ("", block) if index else _string(block)
                found[name], block = _string(block)
    except IndexError:
        raise ValueError("the headers end too early") from None
    found.pop("", None)
    return found


def _check(index: int) -> None:
    if index > STATIC_ENTRIES:
        raise ValueError("the headers need a table that was refused")


def _number(block: bytes, bits: int) -> tuple[int, bytes]:
    """5.1: what does not fit into the first byte follows in sevens of bits."""
    most = (1 << bits) - 1
    value = block[0] & most
    if value < most:
        return value, block[1:]
    for used, byte in enumerate(block[1:5]):
        value += (byte & 0x7F) << 7 * used
        if byte < 0x80:  # noqa: PLR2004 - the bit that says that more follows
            return value, block[used + 2 :]
    raise ValueError("a number in the headers is too long")


def _string(block: bytes) -> tuple[str, bytes]:
    """5.2."""
    packed = block[0] & 0x80
    length, rest = _number(block, 7)
    text, rest = rest[:length], rest[length:]
    if len(text) < length:
        raise ValueError("the headers end too early")
    return (_unpack(text) if packed else text.decode("ascii", "replace")), rest


def _unpack(text: bytes) -> str:
    """What is left at the end is padding: ones, fewer than eight."""
    found, length, code = "", 0, 0
    for position in range(len(text) * 8):
        code = code << 1 | (text[position // 8] >> (7 - position % 8)) & 1
        length += 1
        if symbol := _CODES.get((length, code)):
            found += symbol
            length, code = 0, 0
    return found
