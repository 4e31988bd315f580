"""Protocol buffers on the wire, as much as containerd's messages need.

https://protobuf.dev/programming-guides/encoding: varints and what has a length. A message is the
list of its fields; one that is not set is left out, as its absence means the same.
"""

from collections.abc import Mapping

Value = int | str | bytes

VARINT, SIZED = 0, 2
_FIXED = {1: 8, 5: 4}  # bytes of fields that no message here has; they are skipped


def encode(fields: Mapping[int, Value]) -> bytes:
    """One message; a nested one is given as bytes."""
    return b"".join(_field(number, value) for number, value in fields.items() if value)


def _field(number: int, value: Value) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3 | VARINT) + _varint(value)
    raw = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | SIZED) + _varint(len(raw)) + raw


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits a byte
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


class Reader:
    """The fields of one message, read by number."""

    def __init__(self, raw: bytes) -> None:
        """Raises ValueError."""
        self._fields: dict[int, list[int | bytes]] = {}
        at = 0
        while at < len(raw):
            key, at = _read_varint(raw, at)
            value: int | bytes
            if key & 7 == VARINT:
                value, at = _read_varint(raw, at)
            else:
                length = _FIXED.get(key & 7)
                if length is None:
                    length, at = _read_varint(raw, at)
                value, at = raw[at : at + length], at + length
            self._fields.setdefault(key >> 3, []).append(value)
        if at > len(raw):
            raise ValueError("a message ends too early")

    def number(self, field: int) -> int:
        """0 where it is not set."""
        value = self._fields.get(field, [0])[-1]
        return value if isinstance(value, int) else 0

    def text(self, field: int) -> str:
        """Empty where it is not set."""
        return b"".join(self._raw(field)[-1:]).decode(errors="replace")

    def message(self, field: int) -> "Reader":
        """An empty one where it is not set."""
        return Reader(b"".join(self._raw(field)[-1:]))

    def messages(self, field: int) -> list["Reader"]:
        """All of a repeated field."""
        return [Reader(raw) for raw in self._raw(field)]

    def _raw(self, field: int) -> list[bytes]:
        return [value for value in self._fields.get(field, []) if isinstance(value, bytes)]


def _read_varint(raw: bytes, at: int) -> tuple[int, int]:
    value = 0
    for used, byte in enumerate(raw[at : at + 10]):
        value |= (byte & 0x7F) << 7 * used
        if byte < 0x80:  # noqa: PLR2004 - the bit that says that more follows
            return value, at + used + 1
    raise ValueError("a message ends too early")
