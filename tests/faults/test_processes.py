"""Faults of processes: killed, stopped, started twice, disobedient."""

import os
import resource
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from extsloader.model.settings import Logs
from extsloader.model.status import StatusSnapshot
from tests.fakes import strace
from tests.fakes.memlogd import Memlogd
from tests.fakes.real_agent import (
    HIERARCHIES,
    RealAgent,
    StartAgent,
    find_service,
    pids,
    wait_for_end,
)
from tests.fakes.real_devices import LoopDevice
from tests.fakes.real_images import make_image, service

pytestmark = pytest.mark.root

AT_ONCE = {"base": 0.1, "cap": 0.1, "jitter": 0.0}
ONCE = AT_ONCE | {"limit": 1}
TIRELESS = AT_ONCE | {"limit": 0}
ANSWERS_WITHIN = 1.0  # seconds, invariant I8
AGENTS = 8


def plug_in(stick: LoopDevice, key: Ed25519PrivateKey, directory: Path, *services: object) -> None:
    image = directory / "a.img"
    make_image(image, key, *services)  # type: ignore[arg-type] # they are made by `service`
    stick.plug_in(image)


def test_f06_a_runtime_that_hangs_holds_up_no_stop(
    agent: RealAgent, stick: LoopDevice, key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    plug_in(stick, key, tmp_path, service("a", restart=TIRELESS))
    agent.until_ready()
    while not (stopped := stop_runtime(agent)):
        agent.until_ready()
    assert agent.stop() == 0
    for pid in stopped:
        wait_for_end(pid)
    assert agent.leftovers() == []


def stop_runtime(agent: RealAgent) -> list[int]:
    """Make the service end, and stop for good whatever creates it anew, if it is met."""
    victim = agent.service("a").pid
    assert victim
    os.kill(victim, signal.SIGKILL)
    end = time.monotonic() + 1
    while time.monotonic() < end:
        lines = agent.processes().items()
        met = [pid for pid, line in lines if " create " in line and "runc" in line.split()[0]]
        with suppress(ProcessLookupError):  # it was quicker
            for pid in met:
                os.kill(pid, signal.SIGSTOP)
            if met:
                return met
    return []


def test_f04_an_agent_that_stood_still_starts_each_service_once(
    agent: RealAgent, stick: LoopDevice, key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    names = ("one", "two", "three")
    plug_in(stick, key, tmp_path, *(service(name, restart=AT_ONCE) for name in names))
    before = pids(agent.until_ready())
    os.kill(agent.pid, signal.SIGSTOP)
    for pid in before.values():
        assert pid
        os.kill(pid, signal.SIGKILL)
        wait_for_end(pid)
    os.kill(agent.pid, signal.SIGCONT)
    went_on = time.monotonic()
    agent.status()
    assert time.monotonic() - went_on < ANSWERS_WITHIN
    after = agent.until(
        lambda s: s.state == "ready" and not {*pids(s).values()} & {*before.values()}
    )
    assert [found.restarts for found in after.services] == [1, 1, 1]


def test_f05_a_process_that_should_fork_a_helper_and_stands_still_is_replaced(
    start_agent: StartAgent, stick: LoopDevice, good: Path
) -> None:
    agent = start_agent(stick.node)
    (loaded,) = agent.loaded()
    os.kill(loaded, signal.SIGSTOP)
    stick.plug_in(good)
    agent.until_ready()
    wait_for_end(loaded)


def test_f07_a_storm_of_signals_changes_nothing(
    agent: RealAgent, stick: LoopDevice, good: Path
) -> None:
    stick.plug_in(good)
    before = pids(agent.until_ready())
    for _ in range(1000):
        for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGWINCH):
            os.kill(agent.pid, number)
    asked = time.monotonic()
    assert pids(agent.status()) == before
    assert time.monotonic() - asked < ANSWERS_WITHIN


def test_f08_of_many_agents_one_stays(agent: RealAgent, stick: LoopDevice, good: Path) -> None:
    stick.plug_in(good)
    before = pids(agent.until_ready())
    others = [agent.spawn() for _ in range(AGENTS)]
    assert [other.wait(30) for other in others] == [1] * AGENTS
    assert agent.log().count("one runs already") == AGENTS
    assert pids(agent.status()) == before


DISOBEDIENT = {
    "ignores SIGTERM": "trap '' TERM; while :; do sleep 9999; done",
    "forks twice": "(setsid sh -c 'sleep 9999 & sleep 9999' &) ; sleep 9999",
    "stops itself": "kill -STOP $$; sleep 9999",
}


def test_f43_nothing_is_left_of_disobedient_services(
    agent: RealAgent, stick: LoopDevice, key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    scripts = dict(zip("abc", DISOBEDIENT.values(), strict=True))
    plug_in(stick, key, tmp_path, *(service(name, text) for name, text in scripts.items()))
    agent.until_ready()
    assert agent.stop() == 0
    assert agent.leftovers() == []


def test_f38_a_frozen_service_is_stopped_too(
    agent: RealAgent, stick: LoopDevice, good: Path
) -> None:
    stick.plug_in(good)
    agent.until_ready()
    freezer = HIERARCHIES / "freezer" / agent.cgroup / "api/freezer.state"
    if not freezer.exists():
        pytest.skip("there is no freezer of version 1")
    freezer.write_text("FROZEN")
    assert agent.stop() == 0
    assert agent.leftovers() == []


def test_f46_a_service_may_close_its_output(
    agent: RealAgent, stick: LoopDevice, key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    quiet = service("quiet", "exec >&- 2>&-; touch /ready; trap 'exit 0' TERM; sleep 9999 & wait",
                    readiness={"kind": "file", "path": "/ready"})  # fmt: skip
    plug_in(stick, key, tmp_path, quiet)
    agent.until_ready()


def test_f45_a_service_that_floods_its_output_costs_the_agent_nothing(
    agent: RealAgent, stick: LoopDevice, key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    """64 MiB of zeros without an end of line, then it is ready."""
    loud = service("loud", "dd if=/dev/zero bs=1M count=64; touch /ready; trap 'exit 0' TERM; "
                   "sleep 9999 & wait", readiness={"kind": "file", "path": "/ready"})  # fmt: skip
    plug_in(stick, key, tmp_path, loud)
    agent.until(lambda status: len(status.services) == 1)
    before = cpu_seconds(agent.pid)
    agent.until_ready()
    assert cpu_seconds(agent.pid) - before < 1
    assert sum(p.stat().st_size for p in (agent.run / "log").iterdir()) <= 3 * Logs().size


def test_f45_what_a_service_writes_drives_no_terminal(
    agent: RealAgent, stick: LoopDevice, key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    rude = service("rude", r"printf '\033[2Jgone\r\n\302\2331m\n'; exit 1", restart=ONCE)
    plug_in(stick, key, tmp_path, rude)
    agent.until(lambda status: [found.state for found in status.services] == ["parked"])
    assert agent.explain("rude").log[-2:] == (r"\x1b[2Jgone\r", r"\x9b1m")


def test_f46_a_stopped_agent_holds_up_no_service_that_writes(
    agent: RealAgent, stick: LoopDevice, key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    loud = service("loud", "trap 'dd if=/dev/zero bs=1M count=4; exit 1' USR1; touch /ready; "
                   "sleep 9999 & wait", restart=ONCE,
                   readiness={"kind": "file", "path": "/ready"})  # fmt: skip
    plug_in(stick, key, tmp_path, loud)
    pid = pids(agent.until_ready())["loud"]
    assert pid
    os.kill(agent.pid, signal.SIGSTOP)
    os.kill(pid, signal.SIGUSR1)
    wait_for_end(pid)
    os.kill(agent.pid, signal.SIGCONT)
    agent.until(lambda status: find_service(status, "loud").restarts == 1)


def test_f46_memlogd_reads_on_while_there_is_no_agent(
    start_agent: StartAgent, stick: LoopDevice, key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    agent = start_agent(stick.node)
    with Memlogd.listening(agent.root / "run/linuxkit-external-logging.sock") as memlogd:
        plug_in(stick, key, tmp_path, service("loud", "exec yes"))
        before = pids(agent.until_ready())
        with memlogd.take("loud.out") as stream:
            agent.kill()
            assert stream.read(1 << 20) == "y\n" * (1 << 19)  # many times what a pipe holds
            agent.start()
            assert pids(agent.until_ready()) == before
            assert agent.stop() == 0
            while stream.read(1 << 20):
                pass
    assert agent.leftovers() == []


def test_f47_a_service_that_fills_its_own_layer_is_the_only_one_to_notice(
    agent: RealAgent, stick: LoopDevice, key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    greedy = service(
        "greedy",
        "while cat /bin/busybox >> /fill; do :; done; : > /fill; touch /full; "
        "trap 'exit 0' TERM; sleep 9999 & wait",
        readiness={"kind": "file", "path": "/full"},
        resources={"memory": 256 << 20},
    )
    plug_in(stick, key, tmp_path, greedy, service("other"))
    status = agent.until_ready()
    assert [found.restarts for found in status.services] == [0, 0]


def test_f48_who_needs_a_flapping_service_runs_on(
    agent: RealAgent, stick: LoopDevice, key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    base = service("base", restart=AT_ONCE | {"limit": 0})
    plug_in(stick, key, tmp_path, base, service("user", requires=["base"]))
    user = pids(agent.until_ready())["user"]
    for count in range(1, 6):
        victim = agent.service("base").pid
        assert victim
        os.kill(victim, signal.SIGKILL)
        agent.until(lambda s, n=count: find_service(s, "base").restarts == n
                    and s.state == "ready")  # type: ignore[misc] # fmt: skip
    assert agent.service("user").pid == user


SURROUNDINGS = {
    "locale C": ["env", "LC_ALL=C", "PYTHONUTF8=0", "PYTHONCOERCECLOCALE=0"],
    "time zone": ["env", "TZ=:/no/such\x01zone"],
    "no input": ["sh", "-c", 'exec "$@" <&-', "sh"],
    "no output": ["sh", "-c", 'exec "$@" >&-', "sh"],
    "umask 0": ["sh", "-c", 'umask 0; exec "$@"', "sh"],
    "umask 777": ["sh", "-c", 'umask 777; exec "$@"', "sh"],
    "no directory": ["sh", "-c", 'cd $(mktemp -d) && rmdir $PWD && exec "$@"', "sh"],
    "signals ignored": ["env", "--ignore-signal"],
}


@pytest.mark.parametrize("before", SURROUNDINGS.values(), ids=SURROUNDINGS)
def test_f63_what_surrounds_the_agent_has_no_effect(
    agent: RealAgent, stick: LoopDevice, good: Path, before: list[str]
) -> None:
    agent.stop()
    agent.start(*before)
    stick.plug_in(good)
    agent.until_ready()
    assert (agent.run.stat().st_mode & 0o777, agent.store.stat().st_mode & 0o777) == (0o750, 0o700)


def test_f51_calls_that_are_interrupted_are_called_again(
    agent: RealAgent, stick: LoopDevice, good: Path
) -> None:
    # Not openat: no local file system interrupts it, and listing a directory does not try again.
    calls = "read,epoll_wait,recvmsg,sendmsg,accept4,wait4,waitid,fsync,write"
    with strace.attached(agent, f"inject={calls}:error=EINTR:when=5+7"):
        stick.plug_in(good)
        agent.until_ready()


def test_f53_processes_that_cannot_be_started_are_tried_again(
    start_agent: StartAgent, stick: LoopDevice, key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    agent = start_agent(stick.node, timeouts__retry_base=0.05)
    # With an end: where each try makes three calls in one thread, every third is its last for ever.
    with strace.attached(agent, "inject=vfork,clone3:error=EAGAIN:when=1..13+3"):
        plug_in(stick, key, tmp_path, *(service(name, restart=TIRELESS) for name in "abc"))
        agent.until_ready()
    assert "resource temporarily unavailable" in agent.log().lower()


def cpu_seconds(pid: int) -> float:
    """Of user and system (proc(5), stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_f52_an_agent_without_free_descriptors_recovers(
    agent: RealAgent, stick: LoopDevice, good: Path
) -> None:
    stick.plug_in(good)
    before = pids(agent.until_ready())
    in_use = len(list(Path(f"/proc/{agent.pid}/fd").iterdir()))
    usual = resource.prlimit(agent.pid, resource.RLIMIT_NOFILE)
    for free in range(-2, 6):
        resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (in_use + free, usual[1]))
        with suppress(Exception):  # it may have no descriptor for us
            agent.client.ask("/v1/status", StatusSnapshot)
    spent = cpu_seconds(agent.pid)
    resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, usual)
    assert pids(agent.until_ready()) == before
    assert cpu_seconds(agent.pid) - spent < 1
