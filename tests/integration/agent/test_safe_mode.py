"""A real agent that is killed again and again."""

from pathlib import Path

import pytest

from tests.fakes.real_agent import RealAgent
from tests.fakes.real_devices import LoopDevice

pytestmark = pytest.mark.root


def test_a_crash_loop_ends_in_safe_mode_and_a_polite_restart_leaves_it(
    agent: RealAgent, stick: LoopDevice, good: Path
) -> None:
    """`base` is essential; api and site need it, and nobody needs them."""
    stick.plug_in(good)
    for _ in range(5):
        agent.until_ready()  # else a helper is killed in the middle, and complains
        agent.kill()
        agent.start()
    wanted = {"base": "ready", "api": "excluded", "site": "excluded"}
    status = agent.until(lambda s: {str(x.name): x.state for x in s.services} == wanted)
    assert status.reason == "safe mode: all 1 services are ready, 2 must not run"
    assert agent.until_verdict(stick.node).code == "E_FILTER"
    agent.stop()
    agent.start()
    assert len(agent.until_ready().services) == 3
