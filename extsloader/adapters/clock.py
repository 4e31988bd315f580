"""Clock and dice: the one place where either is read for the core."""

import random
import time

from extsloader.model.machine import Moment

_DICE = random.SystemRandom()


def read_moment() -> Moment:
    """Read both; durations go by CLOCK_BOOTTIME, which neither jumps nor sleeps."""
    return Moment(
        now=time.clock_gettime(time.CLOCK_BOOTTIME),
        wall=time.clock_gettime(time.CLOCK_REALTIME),
        dice=_DICE.random(),
    )
