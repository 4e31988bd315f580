"""A device with Pillar: what its agents hear from us at which time, and what we hear from them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from extsloader.core.pillar import MARK
from extsloader.model.errors import MachineError
from extsloader.model.events import Cause, CauseKind, PillarHeard
from extsloader.model.manifest import Restart, Service
from extsloader.model.reasons import Code, Problem
from extsloader.model.settings import Pillar, Settings
from extsloader.runtime.pillar import BEAT, PillarLink
from extsloader.runtime.tasks import Tasks
from tests.fakes import builders
from tests.fakes.machine import FakeMachine, Medium
from tests.fakes.pillar import FakePillar
from tests.fakes.playbook import LOG, Agent, running

CRASH = Cause(CauseKind.CODE, 7)
ONCE = Restart(limit=1)
NO = Problem(Code.SIGNATURE, "no accepted key signed it")


def stick(*services: Service, verdict: Problem | None = None) -> Medium:
    return Medium(
        source=builders.source(),
        superblock=builders.squashfs(),
        verdict=verdict or builders.stored(*services),
    )


@asynccontextmanager
async def living(
    machine: FakeMachine, pillar: FakePillar, settings: Pillar | None = None
) -> AsyncIterator[Agent]:
    world = builders.world(settings=Settings(pillar=settings or Pillar(enabled=True)))
    async with running(machine, world) as agent:
        link = PillarLink(world.settings, "IMGA", pillar.ports(), agent.now, LOG)
        link.begin()
        tasks = Tasks()
        tasks.spawn("tell", link.report(agent.hub, lambda digest: f"/run/images/{digest[:4]}"))
        tasks.spawn("beat", link.beat(agent.loop.is_alive))
        link.listen(lambda config: agent.loop.put(PillarHeard(config.held)))
        try:
            yield agent
        finally:
            await tasks.close()
            link.end()


async def test_a_good_image_is_starting_and_then_ready() -> None:
    pillar = FakePillar()
    async with living(FakeMachine(), pillar) as agent:
        assert pillar.told[0]["Reason"] == "the agent starts"
        agent.machine.plug(stick(builders.service("a")))
        await agent.until_state("ready")
        await asyncio.sleep(1)
        assert pillar.states == [0, 1]
        digest = builders.stored(builders.service("a")).manifest.image.digest
        last = pillar.told[-1]
        assert (last["Partition"], last["ImagePath"]) == ("IMGA", "/dev/sdb")
        assert last["MountPoint"] == f"/run/images/{digest[:4]}"
        assert last["Reason"] == last["Error"] == ""
        assert pillar.state["state"] == "ready"
    assert pillar.told[-1]["State"] == 0
    assert pillar.told[-1]["Reason"] == "the agent has ended"
    assert pillar.state["state"] == "starting"
    assert pillar.calls == [
        *("open", "claim", "register", "restarted"),
        *("deaf", "close", "release"),
    ]


async def test_without_an_image_nobody_waits_longer_than_to_the_mark() -> None:
    pillar = FakePillar()
    async with living(FakeMachine(), pillar) as agent:
        await asyncio.sleep(MARK - 2)
        assert pillar.states == [0]
        assert pillar.told[-1]["Reason"] == "no image found yet"
        await asyncio.sleep(4)
        assert pillar.states == [0, 2]
        assert pillar.told[-1]["Error"] == "no image found yet"
        assert agent.snapshot().state == "searching"


async def test_a_stick_that_comes_late_makes_it_ready_all_the_same() -> None:
    """nodeagent asks at the end of its window, and only then."""
    pillar = FakePillar()
    async with living(FakeMachine(), pillar) as agent:
        await asyncio.sleep(MARK + 60)
        agent.machine.plug(stick(builders.service("a")))
        await agent.until_state("ready")
        await asyncio.sleep(1)
        assert pillar.states[0:2] == [0, 2]
        assert pillar.states[-1] == 1


async def test_a_refused_image_is_no_end_before_the_mark() -> None:
    pillar = FakePillar()
    async with living(FakeMachine(), pillar) as agent:
        agent.machine.plug(stick(verdict=NO))
        await agent.until_verdict("/dev/sdb", "refused")
        await asyncio.sleep(1)
        assert pillar.states == [0]
        assert "no accepted key signed it" in pillar.told[-1]["Reason"]
        await asyncio.sleep(MARK)
        assert pillar.states == [0, 2]


async def test_an_essential_service_that_gives_up_is_a_failure_at_once() -> None:
    pillar = FakePillar()
    machine = FakeMachine()
    machine.behave("a").exits = CRASH
    async with living(machine, pillar) as agent:
        machine.plug(stick(builders.service("a", essential=True, restart=ONCE)))
        await agent.until_state("failed")
        await asyncio.sleep(1)
        assert pillar.states == [0, 2]
        assert pillar.told[-1]["Services"]["a"]["Code"] == "E_EXIT"


@pytest.mark.parametrize(("partial", "state"), [("ready", 1), ("failed", 2)])
async def test_an_optional_one_that_gives_up_is_a_matter_of_policy(
    partial: str, state: int
) -> None:
    pillar = FakePillar()
    machine = FakeMachine()
    machine.behave("b").exits = CRASH
    async with living(machine, pillar, Pillar(enabled=True, partial=partial)) as agent:
        machine.plug(stick(builders.service("a"), builders.service("b", restart=ONCE)))
        await agent.until_service("b", "parked")
        await asyncio.sleep(MARK)
        assert pillar.states[-1] == state
        last = pillar.told[-1]
        assert last["ErrorSeverity"] == (2 if state == 1 else 3)
        assert last["Services"].keys() == {"b"}


async def test_pillar_s_setting_pauses_its_service_and_lets_it_run_again() -> None:
    pillar = FakePillar()
    async with living(FakeMachine(), pillar) as agent:
        agent.machine.plug(stick(builders.service("memory-monitor"), builders.service("a")))
        await agent.until_state("ready")
        pillar.configure(memory_monitor__enabled=False)
        await agent.until_service("memory-monitor", "paused")
        status = agent.service("memory-monitor")
        assert status.reason == "Pillar's setting memory-monitor.enabled is false"
        assert agent.service("a").state == "ready"
        pillar.configure(memory_monitor__enabled=True)
        await agent.until_service("memory-monitor", "ready")


async def test_override_files_are_seen_within_a_beat_and_are_stronger() -> None:
    pillar = FakePillar()
    async with living(FakeMachine(), pillar) as agent:
        agent.machine.plug(stick(builders.service("memory-monitor"), builders.service("a")))
        await agent.until_state("ready")
        pillar.overrides = {"a": "disabled", "memory-monitor": "enabled"}
        pillar.configure(memory_monitor__enabled=False)
        await agent.until_service("a", "paused")
        assert agent.service("memory-monitor").state == "ready"
        pillar.overrides = {}
        await asyncio.sleep(BEAT + 1)
        assert agent.states() == {"memory-monitor": "paused", "a": "ready"}


async def test_the_watchdog_is_fed_while_the_loop_gets_on() -> None:
    pillar = FakePillar()
    async with living(FakeMachine(), pillar):
        await asyncio.sleep(600)
        assert pillar.touches == pytest.approx(600 / BEAT, abs=1)


async def test_a_loop_that_stands_still_is_not_covered_up() -> None:
    """asyncio turns, but nobody takes an event: that is no progress."""
    pillar = FakePillar()
    link = PillarLink(Settings(), "", pillar.ports(), builders.moment, LOG)
    tasks = Tasks()
    tasks.spawn("beat", link.beat(lambda: False))
    await asyncio.sleep(600)
    await tasks.close()
    assert pillar.touches == 0


async def test_nobody_s_watchdog_is_touched_when_that_is_not_wanted() -> None:
    pillar = FakePillar()
    quiet = Pillar(enabled=True, watchdog=False, state_file=False)
    async with living(FakeMachine(), pillar, quiet):
        await asyncio.sleep(60)
    assert (pillar.touches, pillar.state) == (0, {})
    assert "register" not in pillar.calls


async def test_beside_another_agent_of_the_name_it_does_not_start() -> None:
    pillar = FakePillar()
    pillar.rival = True
    link = PillarLink(Settings(), "", pillar.ports(), builders.moment, LOG)
    with pytest.raises(MachineError):
        link.begin()
    assert pillar.calls == ["open", "claim", "close"]


async def test_a_full_disk_costs_files_and_a_line_in_the_log() -> None:
    pillar = FakePillar()
    with capture_logs() as logs:
        async with living(FakeMachine(), pillar) as agent:
            pillar.full = True
            agent.machine.plug(stick(builders.service("a")))
            await agent.until_state("ready")
            await asyncio.sleep(1)
            assert pillar.states == [0, 1]
    assert {entry["event"] for entry in logs} == {"Pillar", "Pillar's configuration"}
