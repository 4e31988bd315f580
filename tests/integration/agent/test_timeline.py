"""What `extsloaderctl timeline` tells of a real start."""

from pathlib import Path

import pytest

from extsloader.model.timeline import Timeline
from tests.fakes.real_agent import RealAgent
from tests.fakes.real_devices import LoopDevice

pytestmark = pytest.mark.root


def test_a_start_is_told_from_the_stick_to_the_last_service(
    agent: RealAgent, stick: LoopDevice, good: Path, tmp_path: Path
) -> None:
    stick.plug_in(good)
    agent.until_ready()
    told = agent.client.ask("/v1/timeline", Timeline)
    candidate, image, *services = told.critical_path
    assert candidate.startswith(f"candidate {stick.node}")
    assert image.startswith("image ")
    assert services == ["service base", "service api", "service site"]
    dones = [next(r.done for r in told.rows if r.subject == s) for s in told.critical_path]
    assert dones == sorted(done or 0.0 for done in dones)
    assert dones[-1] == told.ready
    drawing = tmp_path / "start.svg"
    assert agent.ctl("timeline", "-o", str(drawing)) == (0, "", "")
    assert all(subject in drawing.read_text("utf-8") for subject in told.critical_path)
