"""What a real agent knows of the one before it."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from extsloader.model.status import StatusSnapshot
from tests.fakes.real_agent import RealAgent, find_service, pids, wait_for_end
from tests.fakes.real_devices import LoopDevice

pytestmark = pytest.mark.root


def run_before(agent: RealAgent) -> str:
    run = agent.status().previous_run
    return run.ended if run else ""


def restarted(count: int) -> Callable[[StatusSnapshot], bool]:
    def check(status: StatusSnapshot) -> bool:
        return status.state == "ready" and find_service(status, "api").restarts == count

    return check


def test_every_agent_says_how_the_one_before_it_ended(agent: RealAgent) -> None:
    assert run_before(agent) == ""
    agent.kill()
    agent.start()
    assert run_before(agent) == "crashed"
    agent.stop()
    agent.start()
    assert run_before(agent) == "stopped"


def test_counts_and_events_outlive_a_killed_agent(
    agent: RealAgent, stick: LoopDevice, good: Path
) -> None:
    stick.plug_in(good)
    victim = find_service(agent.until_ready(), "api").pid
    assert victim
    os.kill(victim, signal.SIGKILL)
    wait_for_end(victim)
    agent.until(restarted(1))
    agent.until(lambda _: b'"restarts":1' in (agent.store.parent / "history").read_bytes())
    agent.kill()
    agent.start()
    agent.until(restarted(1))
    assert "signal 9" in agent.service("api").last_exit
    told = [change.new for change in agent.explain("api").history]
    assert "backing-off" in told


def test_a_damaged_history_is_no_reason_not_to_start(agent: RealAgent) -> None:
    agent.stop()
    for name in ("history", "history.old"):
        (agent.store.parent / name).write_bytes(b"\0" * 100)
    agent.start()
    assert run_before(agent) == "unknown"
    assert [p.code for p in agent.status().problems] == ["E_STATE", "E_STATE"]
    assert sorted(p.name for p in agent.store.parent.glob("quarantine/*")) != []


def test_an_agent_makes_room_for_a_newer_one_and_nobody_else_notices(
    agent: RealAgent, stick: LoopDevice, good: Path
) -> None:
    stick.plug_in(good)
    before, descriptors = pids(agent.until_ready()), len(agent.descriptors())
    for _ in range(3):
        agent.hand_over()
        assert pids(agent.until_ready()) == before
        assert run_before(agent) == "handed-over"
    assert {service.restarts for service in agent.status().services} == {0}
    assert len(agent.descriptors()) == descriptors
    assert len(agent.loaded()) <= 1, "the process that checked the settings is not forgotten"
    assert agent.stop() == 0
