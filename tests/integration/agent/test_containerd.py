"""A real agent whose services are containerd's, where EVE's operators see them."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.fakes.real_agent import RealAgent, StartAgent, find_service, pids
from tests.fakes.real_containerd import Containerd, containerd
from tests.fakes.real_devices import LoopDevice
from tests.fakes.real_images import make_image, service

pytestmark = pytest.mark.root

ALIVE = {"kind": "exec", "command": ["/bin/true"], "interval": 0.1, "failures": 1, "timeout": 1}


@pytest.fixture
def daemon() -> Iterator[Containerd]:
    with containerd() as daemon:
        yield daemon


@pytest.fixture
def agent(daemon: Containerd, start_agent: StartAgent, stick: LoopDevice) -> RealAgent:
    return start_agent(stick.node, runtime="containerd", paths__containerd=daemon.socket)


def test_services_are_seen_by_operators_and_adopted_by_the_next_agent(
    agent: RealAgent, daemon: Containerd, stick: LoopDevice, good: Path
) -> None:
    stick.plug_in(good)
    before = pids(agent.until_ready())
    assert daemon.tasks() == dict.fromkeys(("api", "base", "site"), "RUNNING")
    agent.kill()
    daemon.ctr("tasks", "kill", "--signal", "SIGKILL", "site")
    agent.start()
    status = agent.until(lambda s: s.state == "ready" and find_service(s, "site").restarts)
    after = pids(status)
    assert (after["base"], after["api"]) == (before["base"], before["api"])
    assert after["site"] != before["site"]
    assert find_service(status, "site").last_exit == "signal 9"
    stick.pull_out()


def test_one_that_is_paused_from_outside_is_left_so(
    agent: RealAgent,
    daemon: Containerd,
    stick: LoopDevice,
    key: Ed25519PrivateKey,
    tmp_path: Path,
) -> None:
    make_image(tmp_path / "a.img", key, service("a", health=ALIVE))
    stick.plug_in(tmp_path / "a.img")
    before = find_service(agent.until_ready(), "a")
    daemon.ctr("tasks", "pause", "a")
    for _ in range(2):
        paused = agent.service("a")
        assert (paused.state, paused.pid, paused.restarts) == ("ready", before.pid, 0)
        assert paused.reason == "it is paused by another program"
        assert daemon.tasks() == {"a": "PAUSED"}
        agent.kill()
        agent.start()
        agent.until_ready()
    daemon.ctr("tasks", "resume", "a")
    assert (agent.service("a").pid, agent.service("a").reason) == (before.pid, "")


def test_services_outlive_containerd_and_come_back_with_it(
    agent: RealAgent, daemon: Containerd, stick: LoopDevice, good: Path
) -> None:
    stick.plug_in(good)
    before = pids(agent.until_ready())
    daemon.kill()
    os.kill(before["site"] or 0, signal.SIGKILL)
    agent.until(lambda s: find_service(s, "site").pid is None)
    daemon.start()
    after = pids(agent.until_ready())
    assert (after["base"], after["api"]) == (before["base"], before["api"])
    assert after["site"] not in (None, before["site"])
