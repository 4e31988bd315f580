"""What is measured of an image, and the log that explains the value of the TPM's register.

Extending cannot be undone and must not be done twice, and the agent may be killed at any moment.
So the log has an event before the register has it, with the value that it had; on the way back the
register itself says whether it was extended. The file is a CEL-JSON list of records (TCG Canonical
Event Log Format 1.0, 5): a verifier needs no more than the digests in it.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

from extsloader.model.ids import Digest
from extsloader.model.measurement import BANK, PCR, Measurement

START = bytes(sha256().digest_size)
"""What PCR 12 holds after a reset (TCG PC Client Platform TPM Profile, 4.6)."""

Log = tuple[Measurement, ...]


def describe(image: Digest) -> str:
    """The words that are measured: the proof of concept's, with our digest for its root hash."""
    return f"extsloader:image-verified:{image}"


def digest_of(image: Digest) -> bytes:
    """What the register is extended with."""
    return sha256(describe(image).encode("ascii")).digest()


def extend(value: bytes, image: Digest) -> bytes:
    """The register's value afterwards (TPM 2.0 Library, Part 1, "Extend of a PCR")."""
    return sha256(value + digest_of(image)).digest()


def replay(log: Log, start: bytes = START) -> bytes:
    """The value to which the log leads."""
    for event in log:
        start = extend(start, event.image)
    return start


def find(log: Log, image: Digest) -> Measurement | None:
    """The event of this image: there is at most one."""
    return next((event for event in log if event.image == image), None)


def settle(log: Log, value: bytes) -> Log:
    """What became of an unsure last event, now that the register holds `value`.

    With neither its old nor its new value somebody else has extended it too: the event stays
    unsure, for a second one could be one too many.
    """
    if not log or log[-1].sure:
        return log
    last = log[-1]
    if value == last.before:
        return log[:-1]
    return (*log[:-1], replace(last, sure=value == extend(last.before, last.image)))


def encode(log: Log, boot: str) -> bytes:
    """The file."""
    records = [_encode(number, event, boot) for number, event in enumerate(log)]
    return json.dumps(records, indent=1).encode("ascii") + b"\n"


def decode(raw: bytes, boot: str) -> Log:
    """The log of this boot; one of an earlier boot explains nothing. Raises ValueError."""
    try:
        return tuple(_decode_all(json.loads(raw), boot))
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"records of measurements expected: {error!r}") from error


def _encode(number: int, event: Measurement, boot: str) -> dict[str, Any]:
    return {
        "recnum": number,
        "pcr": PCR,
        "digests": [{"hashAlg": BANK, "digest": digest_of(event.image).hex()}],
        "content_type": "extsloader",
        "content": {
            "event": describe(event.image),
            "image": event.image,
            "before": event.before.hex(),
            "sure": event.sure,
            "boot": boot,
        },
    }


def _decode_all(records: Sequence[Any], boot: str) -> Iterable[Measurement]:
    for number, record in enumerate(records):
        content = record["content"]
        if content["boot"] != boot:
            continue
        before, sure = bytes.fromhex(content["before"]), content["sure"]
        event = Measurement(image=Digest(content["image"]), before=before, sure=sure is True)
        if len(before) != len(START) or record != _encode(number, event, boot):
            raise ValueError(f"record {number} is not what was measured")
        yield event
