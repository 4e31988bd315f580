"""F12, F44, I7: what comes and goes a thousand times costs an agent neither descriptors nor memory.

A share of the cycles; EXTST_CYCLES=1000 makes them all.
"""

import os
import signal
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.fakes.real_agent import RealAgent, StartAgent, find_service
from tests.fakes.real_devices import LoopDevice
from tests.fakes.real_images import make_image, service

pytestmark = [pytest.mark.root, pytest.mark.timeout(1800)]

CYCLES = int(os.environ.get("EXTST_CYCLES", "40"))
WARM = 20  # cycles until buffers and caches have their size
PLUGS = 10  # a place that changes more often within a minute has to wait (core/candidates.py)
GROWTH = 1.02
AT_ONCE = {"base": 0.1, "cap": 0.1, "jitter": 0.0, "limit": 0}


def resident(agent: RealAgent) -> int:
    """Bytes (proc(5), statm)."""
    pages = Path(f"/proc/{agent.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def assert_flat(before: tuple[int, int], agent: RealAgent) -> None:
    assert len(agent.descriptors()) <= before[0]
    assert resident(agent) <= before[1] * GROWTH


def test_f44_a_service_that_is_restarted_again_and_again(
    start_agent: StartAgent, stick: LoopDevice, key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    agent = start_agent(stick.node, limits__restarts=0)
    make_image(tmp_path / "a.img", key, service("a", restart=AT_ONCE))
    stick.plug_in(tmp_path / "a.img")
    agent.until_ready()
    before = (0, 0)
    for count in range(1, WARM + CYCLES + 1):
        victim = agent.service("a").pid
        assert victim
        os.kill(victim, signal.SIGKILL)
        status = agent.until(
            lambda s: s.state == "ready" and find_service(s, "a").pid not in (None, victim)  # noqa: B023
        )
        assert find_service(status, "a").restarts == count
        if count == WARM:
            before = (len(agent.descriptors()), resident(agent))
    assert_flat(before, agent)


def test_f12_a_stick_that_is_plugged_in_again_and_again(
    agent: RealAgent, stick: LoopDevice, good: Path
) -> None:
    before = (0, 0)
    for count in range(1, PLUGS + 1):
        stick.plug_in(good)
        agent.until_verdict(stick.node, "verified")
        stick.pull_out()
        agent.until_gone(stick.node)
        if count == PLUGS // 2:
            agent.until_ready()
            before = (len(agent.descriptors()), resident(agent))
    assert_flat(before, agent)
    assert len(agent.stored()) == 1
