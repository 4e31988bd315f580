"""Pauses between tries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extsloader.core.backoff import delay

SECONDS = st.floats(0.1, 600)
SHARES = st.floats(0, 1)


@pytest.mark.parametrize(
    ("failures", "seconds"), [(0, 1), (1, 1), (2, 2), (3, 4), (4, 8), (5, 10), (99, 10)]
)
def test_pauses_double_up_to_the_cap(failures: int, seconds: float) -> None:
    assert delay(failures=failures, base=1, cap=10, jitter=0, dice=0.7) == seconds


def test_jitter_is_taken_off() -> None:
    assert delay(failures=3, base=1, cap=60, jitter=0.5, dice=0.5) == 3


def test_a_crowd_at_the_cap_stays_spread() -> None:
    dice = [number / 1000 for number in range(1000)]
    pauses = {delay(failures=50, base=1, cap=300, jitter=1, dice=d) for d in dice}
    assert len(pauses) == 1000
    assert min(pauses) < 1
    assert max(pauses) == 300


def test_a_long_row_of_failures_overflows_nothing() -> None:
    assert delay(failures=10**6, base=1, cap=300, jitter=0, dice=0) == 300


@given(failures=st.integers(0, 10_000), base=SECONDS, cap=SECONDS, jitter=SHARES, dice=SHARES)
def test_a_pause_lies_between_the_ceiling_and_what_jitter_leaves_of_it(
    failures: int, base: float, cap: float, jitter: float, dice: float
) -> None:
    ceiling = min(cap, base * 2.0 ** min(max(0, failures - 1), 100))
    pause = delay(failures=failures, base=base, cap=cap, jitter=jitter, dice=dice)
    assert ceiling * (1 - jitter) * (1 - 1e-9) <= pause <= ceiling
