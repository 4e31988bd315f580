"""Exponential back-off with jitter that stays spread at its cap."""

from extsloader.model.settings import Timeouts

DOUBLINGS = 64  # beyond every cap, and far from what a float cannot hold


def delay(*, failures: int, base: float, cap: float, jitter: float, dice: float) -> float:
    """Seconds until the next try after so many failures in a row (1 is the first).

    The jitter is taken off after the cap, so that a crowd that reached the cap stays spread
    ("full jitter" with jitter = 1).
    """
    doublings = min(max(failures - 1, 0), DOUBLINGS)
    ceiling = min(cap, base * (1 << doublings))
    return ceiling * (1 - jitter * dice)


def retry(timeouts: Timeouts, *, failures: int, dice: float) -> float:
    """Seconds until a medium or an image gets its next try."""
    base, cap = timeouts.retry_base, timeouts.retry_cap
    return delay(failures=failures, base=base, cap=cap, jitter=0.5, dice=dice)
