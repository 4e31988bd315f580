"""The packets between publisher and subscriber: words with one blank between them.

Keys and values are base64, so that neither can hold a blank. One packet is one message.
"""

import binascii
from base64 import b64decode, b64encode
from dataclasses import dataclass

MAX_PACKET = 65534
"""Bytes. One more, and a publisher in Go ends itself, and with it the device reboots."""

MAX_REQUEST = 256
"""Bytes that a publisher reads of a request."""


@dataclass(frozen=True, slots=True)
class Hello:
    """The first answer; older publishers do not say whether their items outlive a boot."""


@dataclass(frozen=True, slots=True)
class Update:
    """An item is there, or is another one now."""

    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Delete:
    """An item is gone."""

    key: str


@dataclass(frozen=True, slots=True)
class Complete:
    """All items that were there at the beginning have been told."""


@dataclass(frozen=True, slots=True)
class Restarted:
    """How often the publisher has told everything again."""

    count: int


Packet = Hello | Update | Delete | Complete | Restarted


def request(topic: str) -> bytes:
    """The one thing that a subscriber says."""
    return f"request {topic}".encode()


def write(topic: str, packet: Packet, *, plain_hello: bool = False) -> bytes:
    """The bytes of it. `plain_hello`: as publishers wrote it before they told persistence."""
    match packet:
        case Hello():
            return f"hello {topic}{'' if plain_hello else ' false'}".encode()
        case Update(key, value):
            return b"update %b %b %b" % (topic.encode(), _cover(key), b64encode(value))
        case Delete(key):
            return b"delete %b %b" % (topic.encode(), _cover(key))
        case Complete():
            return f"complete {topic}".encode()
        case Restarted(count):
            return f"restarted {topic} {count}".encode()


def read(topic: str, raw: bytes) -> Packet:
    """Raises ValueError with the reason. Further words of a hello are for newer subscribers."""
    if len(raw) > MAX_PACKET:
        raise ValueError(f"a packet of more than {MAX_PACKET} bytes")
    match raw.split(b" "):
        case [_, name, *_] if name != topic.encode():
            raise ValueError("a packet of another topic")
        case [b"hello", _, *_]:
            return Hello()
        case [b"update", _, key, value]:
            return Update(_uncover(key).decode(), _uncover(value))
        case [b"delete", _, key]:
            return Delete(_uncover(key).decode())
        case [b"complete", _]:
            return Complete()
        case [b"restarted", _, count] if count.isdigit() and len(count) < 20:  # noqa: PLR2004 - 64 bits
            return Restarted(int(count))
    raise ValueError(f"no packet that this agent knows: {raw[:40]!r}")


def _cover(key: str) -> bytes:
    return b64encode(key.encode())


def _uncover(word: bytes) -> bytes:
    """Raises ValueError."""
    try:
        return b64decode(word, validate=True)
    except binascii.Error as error:
        raise ValueError(f"no base64: {error}") from error
