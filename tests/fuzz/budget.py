"""How long made-up bytes are tried, and how they are made up from good ones."""

import os
import time
from collections.abc import Callable
from random import SystemRandom
from typing import TypeVar

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

T = TypeVar("T")

SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
"""For each target. 0: a fixed number of fixed examples, as a change has to be judged."""

_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF, (1 << 64) - 1)


def fuzz(inputs: st.SearchStrategy[T], attempt: Callable[[T], None], examples: int = 300) -> None:
    """Hand inputs to the target, which raises AssertionError, or what nobody has promised."""
    until = time.monotonic() + SECONDS
    while True:
        _try_some(inputs, attempt, examples)
        if time.monotonic() >= until:
            return


def _try_some(inputs: st.SearchStrategy[T], attempt: Callable[[T], None], examples: int) -> None:
    @seed(SystemRandom().getrandbits(64) if SECONDS else 0)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(inputs)
    def one(value: T) -> None:
        attempt(value)

    one()


@st.composite
def spoiled(draw: st.DrawFn, good: bytes, reach: int = 0, most: int = 6) -> bytes:
    """Good bytes with some places of the first `reach` overwritten, cut out, doubled or moved."""
    data = bytearray(good)
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, min(reach or len(good), len(data))))
        length = draw(st.integers(0, 16))
        piece = draw(
            st.binary(max_size=16)
            | st.sampled_from(_NUMBERS).map(lambda n: n.to_bytes(8, "little"))
            | st.just(bytes(data[at : at + length]) * 2)
            | st.sampled_from((b"", b'"', b"\\", b"[", b"{", b"}", b",", b"\0", b"\n"))
        )
        # Only what lies behind a fixed place may move, so most of the time nothing does.
        data[at : at + (len(piece) if draw(st.integers(0, 3)) else length)] = piece
    return bytes(data)


class Media:
    """A medium of bytes that counts what is asked of it."""

    def __init__(self, data: bytes, most: int) -> None:
        self.data = data
        self.left = most  # bytes that may be asked for
        self.calls = 0

    def read(self, offset: int, length: int) -> bytes:
        self.left -= length
        self.calls += 1
        assert offset >= 0
        assert length >= 0
        assert self.left >= 0, "more was read than is documented"
        assert self.calls < 20_000
        return self.data[offset : offset + length]
