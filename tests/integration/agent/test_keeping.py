"""A real agent keeps real services within what manifest and device allow."""

import os
import signal
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.fakes.real_agent import HIERARCHIES, RealAgent, StartAgent, find_service
from tests.fakes.real_devices import LoopDevice
from tests.fakes.real_images import make_image, service

pytestmark = pytest.mark.root

MIB = 1 << 20
AT_ONCE = {"base": 0.1, "cap": 0.1}


def test_a_service_that_falls_ill_is_restarted_and_says_why(
    agent: RealAgent, stick: LoopDevice, key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    well = {"kind": "exec", "command": ["/bin/test", "!", "-e", "/ill"]}
    watched = service(
        "watched",
        health=well | {"interval": 0.1, "failures": 2},
        restart={"base": 600.0, "cap": 600.0, "jitter": 0.0},
    )
    make_image(tmp_path / "a.img", key, watched)
    stick.plug_in(tmp_path / "a.img")
    pid = find_service(agent.until_ready(), "watched").pid
    Path(f"/proc/{pid}/root/ill").touch()
    ill = agent.until(lambda status: find_service(status, "watched").state == "backing-off")
    found = find_service(ill, "watched")
    assert (found.code, ill.state) == ("E_HEALTH", "degraded")
    assert "2 probes in a row failed: exit code 1" in found.reason


def test_a_command_that_does_not_exist_does_not_take_its_whole_timeout(
    agent: RealAgent, stick: LoopDevice, key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    never = {"kind": "exec", "command": ["/bin/nope"], "timeout": 3600}
    make_image(
        tmp_path / "a.img",
        key,
        service("a", readiness=never, restart={"policy": "never"} | AT_ONCE),
    )
    stick.plug_in(tmp_path / "a.img")
    status = agent.until(lambda status: any(s.code == "E_READINESS" for s in status.services))
    assert "it never will be" in status.services[0].reason
    assert "/bin/nope" in status.services[0].reason


def test_conditions_and_conflicts_decide_who_runs_on_this_device(
    agent: RealAgent, stick: LoopDevice, key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.touch()
    services = (
        service("here", conditions={"paths": [str(here)]}),
        service("elsewhere", conditions={"paths": [str(elsewhere)]}),
        service("needy", requires=["elsewhere"]),
        service("weak", conflicts=["best"]),
        service("best", essential=True, stage=1),
    )
    make_image(tmp_path / "a.img", key, *services)
    stick.plug_in(tmp_path / "a.img")
    status = agent.until_ready()
    assert {s.name: s.state for s in status.services} == {
        "here": "ready",
        "elsewhere": "skipped",
        "needy": "skipped",
        "weak": "skipped",
        "best": "ready",
    }
    assert find_service(status, "elsewhere").reason == f"there is no {elsewhere} on this device"
    assert status.reason == "all 2 services are ready, 3 skipped"


def test_a_device_without_room_starts_nothing_until_there_is_some(
    start_agent: StartAgent, stick: LoopDevice, good: Path
) -> None:
    agent = start_agent(stick.node, limits__free_memory="1T")
    stick.plug_in(good)
    status = agent.until(lambda status: any(s.code == "E_RESOURCE" for s in status.services))
    held = next(s for s in status.services if s.code == "E_RESOURCE")
    assert held.state == "blocked"
    assert "1048576 MiB are needed" in held.reason
    assert "looked at again" in held.outlook
    assert not any(s.state == "ready" for s in status.services)


def test_limits_survive_the_ends_of_service_and_agent(
    start_agent: StartAgent, stick: LoopDevice, key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    if not (HIERARCHIES / "memory").is_dir():
        pytest.skip("memory is not limited by control groups of version 1")
    agent = start_agent(stick.node, limits__memory="200M")
    make_image(
        tmp_path / "a.img", key, service("a", resources={"memory": 16 * MIB}, restart=AT_ONCE)
    )
    stick.plug_in(tmp_path / "a.img")

    def limits() -> tuple[int, int]:
        group = HIERARCHIES / "memory" / agent.cgroup
        files = (group / "memory.limit_in_bytes", group / "a/memory.limit_in_bytes")
        return int(files[0].read_text()), int(files[1].read_text())

    first = find_service(agent.until_ready(), "a").pid
    assert limits() == (200 * MIB, 16 * MIB)
    assert first
    os.kill(first, signal.SIGKILL)
    agent.until(
        lambda status: (
            status.state == "ready" and find_service(status, "a").pid not in (None, first)
        )
    )
    assert limits() == (200 * MIB, 16 * MIB)
    agent.kill()
    assert limits() == (200 * MIB, 16 * MIB)
    agent.start()
    agent.until_ready()
    assert limits() == (200 * MIB, 16 * MIB)
