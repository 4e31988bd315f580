"""F01, F02, F28, F30, F51, F53: a random share of all crash points; `make sweep` takes them all."""

import secrets
from pathlib import Path

import pytest

from tests.fakes import strace
from tests.fakes.real_images import BUSYBOX
from tests.faults.crash_points import Images, sweep, tell_all

pytestmark = [pytest.mark.root, pytest.mark.nemesis]

SHARE = 30.0  # seconds of points, after what it costs to tell each story once


@pytest.mark.timeout(300)
def test_f01_every_story_ends_well_wherever_a_fault_strikes(tmp_path: Path) -> None:
    if not (BUSYBOX.exists() and strace.is_there()):
        pytest.skip("busybox-static or strace is not installed")
    images = Images(tmp_path)
    cleans = tell_all(images)
    seed = secrets.randbelow(1 << 32)
    print(f"python -m tests.faults.crash_points --seed {seed}")
    outcomes = list(sweep(cleans, images, seed, SHARE))
    assert any(outcome.hit for outcome in outcomes)
    violated = [outcome for outcome in outcomes if outcome.violations]
    assert not violated, "\n".join(f"{o.point}: {o.violations}\n{o.log}" for o in violated)
