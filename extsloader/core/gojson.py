"""JSON as Go's encoding/json writes it, byte for byte: Pillar's tools compare bytes."""

import json
import re
from typing import Any

# Go escapes these so that JSON may stand in HTML and JavaScript (encoding/json, HTMLEscape).
_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}
_UNDECODABLE = re.compile("[\ud800-\udfff]")


def encode(value: Any, *, sort: bool = False) -> bytes:
    """Compact, in the order of the dict as a struct's fields are; `sort` as a Go map's are.

    Text that is no Unicode becomes U+FFFD.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=sort)
    return _UNDECODABLE.sub(r"\\ufffd", text.translate(_ESCAPES)).encode()
