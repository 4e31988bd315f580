"""The agent ends, politely or not, at every moment; the services and the machine survive it."""

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from extsloader.model.status import StatusSnapshot
from tests.fakes.real_agent import RealAgent, find_service, pids, wait_for_end
from tests.fakes.real_devices import LoopDevice
from tests.fakes.real_images import make_image, service

pytestmark = pytest.mark.root

Moment = Callable[[StatusSnapshot], bool]


ON_THE_WAY = ("creating", "created", "starting", "started", "ready")


def reached(state: str) -> Moment:
    """Some service is there or further: a single state may be over before anybody sees it."""
    beyond = ON_THE_WAY[ON_THE_WAY.index(state) :]
    return lambda status: any(service.state in beyond for service in status.services)


MOMENTS: dict[str, Moment] = {
    "image is being mounted": lambda status: status.image is not None,
    "services are being created": reached("creating"),
    "a container was created": reached("created"),
    "the first service runs": reached("ready"),
}
at_each_moment = pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)


def assert_all_is_there_once(agent: RealAgent, services: int) -> None:
    """Image and its loop device, and for each service a tmpfs, an overlay, one conmon."""
    mounts = Counter(agent.mounts())
    assert set(mounts.values()) == {1}, mounts
    assert len(mounts) == 1 + 2 * services
    assert len(agent.loops()) == 1
    lines = [line for line in agent.processes().values() if "conmon" in line.split()[0]]
    assert len(lines) == services, lines


def test_services_outlive_the_agent(agent: RealAgent, stick: LoopDevice, good: Path) -> None:
    stick.plug_in(good)
    before = agent.until_ready()
    agent.kill()
    assert all(Path(f"/proc/{pid}").exists() for pid in pids(before).values())
    agent.start()
    after = agent.until_ready()
    assert pids(after) == pids(before)
    assert not any(service.restarts for service in after.services)
    assert_all_is_there_once(agent, services=3)


def test_services_outlive_the_agent_and_the_stick(
    agent: RealAgent, stick: LoopDevice, good: Path
) -> None:
    stick.plug_in(good)
    before = agent.until_ready()
    stick.pull_out()
    agent.until_gone(stick.node)
    agent.kill()
    agent.start()
    after = agent.until_ready()
    assert pids(after) == pids(before)
    assert after.image
    assert after.image.source == f"{agent.store}/{agent.stored()[0]}"
    assert_all_is_there_once(agent, services=3)


def test_who_died_meanwhile_is_started_again(
    agent: RealAgent, stick: LoopDevice, good: Path
) -> None:
    stick.plug_in(good)
    before = pids(agent.until_ready())
    agent.kill()
    dead = before["api"]
    assert dead
    os.kill(dead, signal.SIGKILL)
    wait_for_end(dead)
    agent.start()
    after = pids(agent.until_ready())
    assert after.pop("api") not in (None, before.pop("api"))
    assert after == before
    assert agent.service("api").last_exit == "signal 9"
    assert agent.service("api").restarts == 1
    assert_all_is_there_once(agent, services=3)


def test_a_newer_image_takes_over_from_a_killed_agent(
    agent: RealAgent, stick: LoopDevice, good: Path, newer: Path
) -> None:
    """Nothing of the older image stays, also of the service that the newer one does not have."""
    stick.plug_in(good)
    before = pids(agent.until_ready())
    stick.pull_out()
    agent.until_gone(stick.node)
    stick.plug_in(newer)
    agent.until_verdict(stick.node)
    agent.kill()
    agent.start()
    after = agent.until_ready()
    assert after.image
    assert after.image.sequence == 2
    assert not set(before.values()) & set(pids(after).values())
    assert not any(Path(f"/proc/{pid}").exists() for pid in before.values())
    assert_all_is_there_once(agent, services=2)


def test_a_stop_takes_away_what_no_image_stands_for_any_more(
    agent: RealAgent, stick: LoopDevice, good: Path
) -> None:
    """The services of a killed agent run on, but their image is not accepted any more."""
    stick.plug_in(good)
    before = agent.until_ready()
    agent.kill()
    (agent.root / "etc/extsloader/keys/0.pem").unlink()
    agent.start()
    agent.until_verdict(stick.node, "refused")
    assert all(Path(f"/proc/{pid}").exists() for pid in pids(before).values())
    assert agent.stop() == 0
    assert agent.leftovers() == []


@at_each_moment
def test_a_kill_during_activation(
    agent: RealAgent, stick: LoopDevice, good: Path, moment: Moment
) -> None:
    stick.plug_in(good)
    agent.until(moment)
    agent.kill()
    agent.start()
    after = agent.until_ready()
    assert not any(service.restarts for service in after.services)
    assert_all_is_there_once(agent, services=3)


@at_each_moment
def test_a_stop_during_activation(
    agent: RealAgent, stick: LoopDevice, good: Path, moment: Moment
) -> None:
    stick.plug_in(good)
    agent.until(moment)
    assert agent.stop() == 0
    assert agent.leftovers() == []


def test_a_stop_while_a_service_does_not_become_ready(
    agent: RealAgent, stick: LoopDevice, key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    """It does not even hear SIGTERM, and is killed after its grace time."""
    deaf = service(
        "deaf",
        "exec sleep 9999",
        readiness={"kind": "file", "path": "/nothing"},
        stop={"grace": 0.2},
    )
    make_image(tmp_path / "deaf.img", key, deaf, service("user", requires=["deaf"]))
    stick.plug_in(tmp_path / "deaf.img")
    status = agent.until(reached("started"))
    assert find_service(status, "user").waiting_for == ("deaf",)
    assert agent.stop() == 0
    assert agent.leftovers() == []


def test_a_start_that_fails_while_services_run_says_why(
    agent: RealAgent, stick: LoopDevice, good: Path
) -> None:
    """Their control groups are in use: that is as it should be, and no reason to end."""
    stick.plug_in(good)
    before = agent.until_ready()
    agent.kill()
    in_the_way = agent.run / "extsloader.sock"
    in_the_way.unlink()
    in_the_way.touch()
    assert agent.spawn().wait(10) == 1
    in_the_way.unlink()
    assert "exists and is not a socket" in agent.log().splitlines()[-1]
    assert "remove the group" not in agent.log()
    agent.start()
    assert pids(agent.until_ready()) == pids(before)


def test_a_stop_during_the_start_is_a_clean_stop(
    agent: RealAgent, stick: LoopDevice, good: Path
) -> None:
    """Also for the services of its predecessor, which it adopts in order to stop them."""
    stick.plug_in(good)
    agent.until_ready()
    agent.kill()
    process = agent.spawn()
    while not holds_back(process.pid, signal.SIGTERM):
        assert process.poll() is None
    process.terminate()
    assert process.wait(10) == 0
    assert not agent.leftovers()


def holds_back(pid: int, number: int) -> bool:
    """Whether the process blocks the signal (proc(5), SigBlk)."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    mask = next(line.split()[1] for line in lines if line.startswith("SigBlk:"))
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_there_is_one_agent_for_one_root(agent: RealAgent, stick: LoopDevice, good: Path) -> None:
    stick.plug_in(good)
    before = agent.until_ready()
    second = agent.spawn()
    assert second.wait(10) == 1
    assert "cannot start a second agent: one runs already" in agent.log()
    assert "Traceback" not in agent.log()
    after = agent.status()
    assert (after.state, after.since, after.image) == ("ready", before.since, before.image)
    assert pids(after) == pids(before)
    assert after.agent
    assert after.agent.pid == agent.pid
