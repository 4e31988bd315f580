"""JSON for trust decisions: what two parsers could read differently is refused (RFC 8259, 4 and 8).

Objects without duplicate names, no byte order mark, no UTF-16, no NaN, no null, bounded depth and
integers that every JSON implementation can hold (I-JSON, RFC 7493).
"""

import json
import math
from typing import Any

MAX_DEPTH = 16
MAX_INTEGER = (1 << 53) - 1

_OPEN, _CLOSE, _QUOTE, _ESCAPE = b"[{", b"]}", ord('"'), ord("\\")


def parse_object(raw: bytes) -> dict[str, Any]:
    """Parse one JSON object; members whose name begins with "x-" are dropped, at every level.

    Raises ValueError with a sentence for people.
    """
    if not raw.startswith(b"{"):
        raise ValueError("it does not start with {")
    if depth(raw) > MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 at byte {error.start}") from None
    try:
        found: dict[str, Any] = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error.msg.lower()} at character {error.pos}") from None
    _check_strings(found)
    return found


def depth(raw: bytes) -> int:
    """How deep arrays and objects are nested, strings left out, by a scan that needs no stack."""
    level = deepest = 0
    in_string = escaped = False
    for byte in raw:
        if in_string:
            in_string = escaped or byte != _QUOTE
            escaped = byte == _ESCAPE and not escaped
        elif byte == _QUOTE:
            in_string = True
        elif byte in _OPEN:
            level += 1
            deepest = max(deepest, level)
        elif byte in _CLOSE:
            level -= 1
    return deepest


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the name {shown(name)} appears twice in one object")
        if value is None:
            raise ValueError(f"{shown(name)} is null: leave it out instead")
        found[name] = value
    return {name: value for name, value in found.items() if not name.startswith("x-")}


def _check_strings(value: Any) -> None:
    """Lone surrogates cannot be written out again, and NUL ends a string early in C."""
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
            raise ValueError(f"{shown(value)} holds a NUL or half a surrogate pair")
    elif isinstance(value, dict | list):
        for part in (*value, *value.values()) if isinstance(value, dict) else value:
            _check_strings(part)


def _integer(digits: str) -> int:
    """Length first: int() of many digits is slow, and refused by Python with another error."""
    if len(digits) > len(str(MAX_INTEGER)) + 1 or abs(int(digits)) > MAX_INTEGER:
        raise ValueError(f"the number {digits[:20]}... is larger than {MAX_INTEGER}")
    if digits == "-0":
        raise ValueError("-0 is no integer")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits[:64])
    if not math.isfinite(value) or len(digits) > 64:  # noqa: PLR2004 - no sane number is longer
        raise ValueError(f"the number {digits[:20]} is out of range")
    return value


def _constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def shown(text: str) -> str:
    """Text from outside, short and escaped, fit for a message."""
    return ascii(text if len(text) <= 40 else text[:40] + "...")  # noqa: PLR2004 - one line


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
)
