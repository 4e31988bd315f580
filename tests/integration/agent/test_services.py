"""Services that become ready in every way there is, and services that misbehave."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.fakes.real_agent import HIERARCHIES, RealAgent, StartAgent, agents, find_service, pids
from tests.fakes.real_devices import LoopDevice
from tests.fakes.real_images import make_image, service

pytestmark = pytest.mark.root

MIB = 1 << 20
AFTER_THE_GATE = "trap 'exit 0' TERM; while ! test -e /gate; do sleep 0.02; done; {}; sleep 9999 &"
QUICKLY = {"base": 0.1, "cap": 0.1, "limit": 2}
SELDOM = {"base": 600.0, "cap": 600.0, "jitter": 0.0}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def test_every_way_to_become_ready(
    agent: RealAgent, stick: LoopDevice, key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    """Each service waits for a file; the test opens the gates and not earlier they are ready."""
    tcp, http = free_port(), free_port()
    # A line of its own in a message to syslog's socket is as good as systemd-notify.
    notify = 'ln -s $NOTIFY_SOCKET /dev/log; logger "$(printf "x\\nREADY=1")"'
    ways: dict[str, tuple[str, dict[str, object]]] = {
        "file": ("touch /ready", {"path": "/ready"}),
        "exec": ("touch /ready", {"command": ["/bin/test", "-e", "/ready"]}),
        "tcp": (f"httpd -p 127.0.0.1:{tcp}", {"port": tcp}),
        "http": (
            f"echo > /index.html; httpd -h / -p 127.0.0.1:{http}",
            {"port": http, "path": "/index.html"},
        ),
        "notify": (notify, {}),
    }
    waiting = [
        service(
            kind,
            AFTER_THE_GATE.format(work) + " wait",
            readiness={"kind": kind} | options,
        )
        for kind, (work, options) in ways.items()
    ]
    late = service("late", readiness={"kind": "delay", "seconds": 0.1}, requires=list(ways))
    make_image(tmp_path / "ways.img", key, *waiting, late)
    stick.plug_in(tmp_path / "ways.img")

    closed = agent.until(
        lambda status: sum(s.state == "started" for s in status.services) == len(ways)
    )
    assert find_service(closed, "late").waiting_for == tuple(ways)
    for kind in ways:
        found = find_service(closed, kind)
        assert found.reason.startswith(f"waits for readiness by {kind}"), found
        Path(f"/proc/{found.pid}/root/gate").touch()
    opened = agent.until_ready()
    assert {name: pids(opened)[name] for name in ways} == {
        name: pids(closed)[name] for name in ways
    }


@pytest.fixture(scope="module")
def ward(
    tmp_path_factory: pytest.TempPathFactory, key: Ed25519PrivateKey, module_stick: LoopDevice
) -> Iterator[RealAgent]:
    """An agent whose services are ill, each in its own way; two are in good health."""
    watched = tmp_path_factory.mktemp("ward")
    ill = (
        service("never", readiness={"kind": "exec", "command": ["/bin/false"], "timeout": 0.3},
                restart=SELDOM),
        service("crash", "exit 7", restart=QUICKLY),
        service("needy", requires=["crash"]),
        service("greedy", "exec tail /dev/zero", restart=SELDOM, resources={"memory": 12 * MIB}),
        service("missing", entry={"command": ["/bin/none"]}, restart=QUICKLY),
        service("done", "exit 0", restart={"policy": "on-failure"}),
        service("fine", essential=True),
    )  # fmt: skip
    make_image(watched / "part", key, *ill)
    (watched / "part").rename(watched / "ill.img")
    with agents(tmp_path_factory, key) as start:
        yield start(module_stick.node, paths__watch=watched)


ILL = {
    "never": ("backing-off", "E_READINESS", "exit code 0", "within 0.3 s: exit code 1"),
    "crash": ("parked", "E_EXIT", "exit code 7", "gave up after 2 failures in a row"),
    "greedy": ("backing-off", "E_RESOURCE", "a kill for lack of memory", "more memory than"),
    "missing": ("parked", "E_RUNTIME", "", "/bin/none"),
}


@pytest.mark.parametrize("name", ILL)
def test_an_ill_service_says_what_it_has(ward: RealAgent, name: str) -> None:
    state, code, last_exit, words = ILL[name]
    found = find_service(
        ward.until(lambda status: any((s.name, s.state) == (name, state) for s in status.services)),
        name,
    )
    assert (found.code, found.last_exit) == (code, last_exit)
    assert words in found.reason
    assert found.hint
    explanation = ward.explain(name)
    assert explanation.summary.startswith(f"{name} is {state.replace('-', ' ')}: cannot ")
    assert words in explanation.summary
    assert "\n" not in explanation.summary
    assert explanation.next_step == found.hint


def test_who_needs_an_ill_service_is_not_started(ward: RealAgent) -> None:
    ward.until(lambda status: find_service(status, "crash").state == "parked")
    assert ward.service("needy").pid is None
    assert "crash is parked" in ward.explain("needy").summary


def test_the_others_are_not_disturbed(ward: RealAgent) -> None:
    status = ward.until(
        lambda s: s.services and all(find_service(s, name).state == ILL[name][0] for name in ILL)
    )
    fine = find_service(status, "fine")
    assert (fine.state, fine.restarts) == ("ready", 0)
    assert find_service(status, "done").state == "finished"
    assert find_service(status, "crash").restarts == 2
    assert status.state == "degraded"


def test_limits_are_in_the_control_groups(
    start_agent: StartAgent,
    stick: LoopDevice,
    key: Ed25519PrivateKey,
    tmp_path: Path,
) -> None:
    if not (HIERARCHIES / "memory").is_dir():
        pytest.skip("memory is not limited by control groups of version 1")
    agent = start_agent(stick.node, limits__memory="200M", limits__pids=99)
    resources = {"memory": 16 * MIB, "pids": 20, "cpu_quota": 0.5, "cpu_weight": 50}
    two = "trap 'exit 0' TERM; sleep 9999 & touch /ready; wait"
    ready = {"kind": "file", "path": "/ready"}
    small = service("small", two, resources=resources, readiness=ready)
    make_image(tmp_path / "a.img", key, small, service("usual"))
    stick.plug_in(tmp_path / "a.img")
    agent.until_ready()
    status = agent.status()  # a long poll tells no usage

    def read(file: str) -> int:
        controller, _, name = file.partition("/")
        return int((HIERARCHIES / controller / agent.cgroup / name).read_text())

    found = find_service(status, "small")
    assert read("memory/small/memory.limit_in_bytes") == 16 * MIB
    assert read("pids/small/pids.max") == 20
    assert read("cpu/small/cpu.cfs_quota_us") / read("cpu/small/cpu.cfs_period_us") == 0.5
    assert read("cpu/small/cpu.shares") == 512
    assert read("memory/usual/memory.limit_in_bytes") == 128 * MIB  # limits.service_memory
    assert read("memory/memory.limit_in_bytes") == 200 * MIB
    assert read("pids/pids.max") == 99
    for controller in ("memory", "pids", "cpu"):
        members = (HIERARCHIES / controller / agent.cgroup / "small/cgroup.procs").read_text()
        assert str(found.pid) in members.split()
    assert found.limits
    assert found.usage
    assert (found.limits.memory, found.usage.pids, found.usage.oom_kills) == (16 * MIB, 2, 0)
    assert 0 < (found.usage.memory or 0) <= 16 * MIB
    assert (found.usage.cpu_seconds or 0) > 0
