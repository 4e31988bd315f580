"""Services are kept running, and what cannot run says so."""

import asyncio
from dataclasses import replace

import pytest

from extsloader.model.events import Cause, CauseKind
from extsloader.model.machine import Load
from extsloader.model.manifest import (
    Conditions,
    Health,
    ProbeKind,
    Readiness,
    Restart,
    Service,
)
from extsloader.model.reasons import Code, Problem
from extsloader.model.settings import Limits, Settings
from tests.fakes import builders
from tests.fakes.machine import FakeMachine, Medium
from tests.fakes.playbook import running

CRASH = Cause(CauseKind.CODE, 7)
BY_HTTP = Readiness(kind=ProbeKind.HTTP, port=80, path="/")
RIVALS = (
    builders.service("first", restart=Restart(limit=1), conflicts=["second"]),
    builders.service("second"),
)
WATCHED = Health(kind=ProbeKind.HTTP, port=80, path="/", interval=10, failures=3)


def stick(*services: Service, generation: str = "1") -> Medium:
    return Medium(
        source=builders.source("/dev/sdb", generation),
        superblock=builders.squashfs(),
        verdict=builders.stored(*services),
    )


def starts(machine: FakeMachine, name: str = "") -> int:
    return sum(call.startswith(f"start {name}") for call in machine.calls)


async def test_a_stick_that_comes_back_is_known_by_its_digest_and_disturbs_nobody() -> None:
    machine = FakeMachine()
    async with running(machine, builders.world()) as agent:
        machine.plug(stick(builders.service("a")))
        first = (await agent.until_state("ready")).services[0].pid
        machine.pull("/dev/sdb")
        gone = await agent.until(lambda s: s.image is not None and not s.image.source_present)
        assert gone.state == "ready"
        machine.plug(stick(builders.service("a"), generation="2"))
        await agent.until_verdict("/dev/sdb", "verified")
        back = agent.snapshot()
        assert back.services[0].pid == first
        assert len({c.digest for c in back.candidates if c.digest}) == 1
    assert starts(machine) == 1


async def test_a_storm_of_crashes_is_spread_over_the_minutes() -> None:
    machine = FakeMachine()
    services = [
        builders.service(f"s{number}", restart=Restart(base=0.1, cap=1, limit=0))
        for number in range(50)
    ]
    for service in services:
        machine.behave(service.name).exits = CRASH
    async with running(machine, builders.world()) as agent:
        machine.plug(stick(*services))
        await agent.until_service("s49", "due")
        before = starts(machine)
        await asyncio.sleep(601)  # between two restarts
        more = starts(machine) - before
        waiting = [s for s in agent.snapshot().services if s.state == "due"]
        assert 295 <= more <= 330, "30 a minute, and what was left of the first one"
        assert "all services together may restart 30 times a minute" in waiting[0].outlook
        each = [starts(machine, f"{service.name} ") for service in services]
        assert max(each) <= 2 * min(each) + 2, "nobody is forgotten"


async def test_a_service_that_fails_its_probes_is_restarted() -> None:
    machine = FakeMachine()
    async with running(machine, builders.world(), dice=0.0) as agent:
        machine.plug(stick(builders.service("a", readiness=BY_HTTP, health=WATCHED)))
        await agent.until_service("a", "ready")
        await asyncio.sleep(300)
        assert starts(machine) == 1
        machine.behave("a").ready = False
        sick = await agent.until_service("a", "backing-off")
        assert sick.services[0].code is Code.HEALTH
        machine.behave("a").ready = True
        await agent.until_service("a", "ready")
    assert starts(machine) == 2


async def test_a_service_that_another_program_has_paused_is_not_sick() -> None:
    machine = FakeMachine()
    async with running(machine, builders.world()) as agent:
        machine.plug(stick(builders.service("a", readiness=BY_HTTP, health=WATCHED)))
        await agent.until_service("a", "ready")
        machine.frozen.add("a")
        machine.behave("a").ready = False
        await asyncio.sleep(600)
        assert starts(machine) == 1
        paused = agent.snapshot().services[0]
        assert (paused.state, paused.reason) == ("ready", "it is paused by another program")
        machine.frozen.clear()
        sick = await agent.until_service("a", "backing-off")
        assert sick.services[0].code is Code.HEALTH


async def test_a_device_without_memory_puts_starts_off_and_says_so() -> None:
    machine = FakeMachine()
    machine.load = Load(free_memory=1 << 20)
    async with running(machine, builders.world()) as agent:
        machine.plug(stick(builders.service("a")))
        snapshot = await agent.until_service("a", "blocked")
        assert snapshot.services[0].code is Code.RESOURCE
        await asyncio.sleep(120)
        assert starts(machine) == 0
        assert agent.history("admission") == ["deferred"]
        machine.load = Load(free_memory=1 << 30)
        await agent.until_state("ready")
        assert agent.history("admission") == ["deferred", "open"]


async def test_of_two_rivals_the_second_steps_in_when_the_first_gives_up() -> None:
    machine = FakeMachine()
    machine.behave("first").exits = CRASH
    async with running(machine, builders.world()) as agent:
        machine.plug(stick(*RIVALS))
        await agent.until_service("second", "ready")
        assert agent.states() == {"first": "parked", "second": "ready"}
        assert agent.history("service second")[:2] == ["removing", "idle"]


async def test_a_rival_that_runs_since_before_the_agents_start_makes_room() -> None:
    machine = FakeMachine()
    machine.running.add("second")
    machine.containers["second"] = 77
    machine.origins["second"] = builders.stored().digest
    async with running(machine, builders.world()) as agent:
        machine.plug(stick(*RIVALS))
        await agent.until_service("first", "ready")
        assert "second" not in machine.containers
        assert machine.calls.index("delete second") < machine.calls.index("start first")


async def test_a_condition_is_looked_at_on_the_device() -> None:
    machine = FakeMachine()
    machine.paths = {"/dev/tpm0"}
    services = [
        builders.service(name, conditions=Conditions(paths=(path,)))
        for name, path in (("tpm", "/dev/tpm0"), ("gpu", "/dev/nvidia0"))
    ]
    async with running(machine, builders.world()) as agent:
        machine.plug(stick(*services))
        snapshot = await agent.until_state("ready")
        assert snapshot.reason == "all 1 services are ready, 1 skipped"
        assert agent.states() == {"tpm": "ready", "gpu": "skipped"}


@pytest.mark.parametrize("budget", [0, 1])
async def test_the_failure_budget_is_a_setting(budget: int) -> None:
    machine = FakeMachine()
    for name in "ab":
        machine.behave(name).create_fails = Problem(Code.RUNTIME, "no")
    never = Restart(limit=1, base=0.1)
    settings = Settings(limits=Limits(failures=budget))
    async with running(machine, replace(builders.world(), settings=settings)) as agent:
        machine.plug(
            stick(*(builders.service(n, restart=never) for n in "ab"), builders.service("c"))
        )
        await agent.until(lambda s: [x.state for x in s.services] == ["parked", "parked", "ready"])
        assert agent.snapshot().state == ("failed" if budget else "degraded")


async def test_a_command_that_does_not_exist_is_told_at_once() -> None:
    machine = FakeMachine()
    machine.behave("a").no_command = True
    probe = Readiness(kind=ProbeKind.EXEC, command=("/nope",), timeout=3600)
    async with running(machine, builders.world()) as agent:
        machine.plug(stick(builders.service("a", readiness=probe)))
        snapshot = await agent.until_service("a", "backing-off")
        assert asyncio.get_running_loop().time() < 60
        assert snapshot.services[0].reason.startswith("cannot call a ready, it never will be: ")
        assert snapshot.services[0].hint == "correct readiness in its manifest"
