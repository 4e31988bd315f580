"""What can be shown as a date."""

import math
from datetime import UTC, datetime

import pytest

from extsloader.model.machine import END_OF_TIME, is_time


@pytest.mark.parametrize("wall", [0, 0.5, 1.8e9, math.nextafter(END_OF_TIME, 0)])
def test_what_is_a_time_can_be_shown(wall: float) -> None:
    assert is_time(wall)
    assert datetime.fromtimestamp(int(wall), UTC).year < 10000


@pytest.mark.parametrize("wall", [-1, END_OF_TIME, math.inf, -math.inf, math.nan])
def test_what_no_calendar_knows_is_none(wall: float) -> None:
    assert not is_time(wall)
