"""Exponential back-off with jitter that stays spread at its cap."""

from dataclasses import dataclass
from typing import cast

from tenacity import RetryCallState
from tenacity.wait import wait_exponential

from extsloader.model.settings import Timeouts


@dataclass(frozen=True, slots=True)
class _Attempt:
    """All that tenacity's exponential wait reads of its state.

    A real RetryCallState reads the clock when it is made, which the core must not.
    """

    attempt_number: int


def delay(*, failures: int, base: float, cap: float, jitter: float, dice: float) -> float:
    """Seconds until the next try after so many failures in a row (1 is the first).

    The jitter is taken off after the cap, so that a crowd that reached the cap stays spread
    ("full jitter" with jitter = 1); tenacity's own jittered waits draw their own dice.
    """
    wait = wait_exponential(multiplier=base, max=cap)
    ceiling = wait(cast("RetryCallState", _Attempt(max(1, failures))))
    return ceiling * (1 - jitter * dice)


def retry(timeouts: Timeouts, *, failures: int, dice: float) -> float:
    """Seconds until a medium or an image gets its next try."""
    base, cap = timeouts.retry_base, timeouts.retry_cap
    return delay(failures=failures, base=base, cap=cap, jitter=0.5, dice=dice)
