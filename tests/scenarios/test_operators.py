"""Operators' hands: stop, start, restart, pause, and a configuration that changes."""

from dataclasses import replace

from extsloader.core.history import begin
from extsloader.model.control import Result, Verb
from extsloader.model.manifest import Service
from extsloader.model.settings import Rollout, Settings
from extsloader.model.world import World
from tests.fakes import builders
from tests.fakes.machine import FakeMachine, Medium
from tests.fakes.playbook import Agent, running


def stick() -> Medium:
    return Medium(
        source=builders.source(), superblock=builders.squashfs(), verdict=builders.stored(*shop())
    )


def shop() -> tuple[Service, ...]:
    return (
        builders.service("broker", essential=True),
        builders.service("telemetry", requires=["broker"]),
        builders.service("web"),
    )


async def order(agent: Agent, verb: Verb, service: str = "") -> Result:
    return (await agent.control.ask(verb, service, 0)).result


async def test_a_stopped_service_goes_with_its_users_and_comes_back_with_them() -> None:
    machine = FakeMachine()
    async with running(machine, builders.world()) as agent:
        machine.plug(stick())
        await agent.until_state("ready")
        assert await order(agent, Verb.STOP, "broker") is Result.ACCEPTED
        snapshot = await agent.until_service("broker", "stopped")
        assert agent.states() == {"broker": "stopped", "telemetry": "blocked", "web": "ready"}
        assert (snapshot.state, snapshot.reason) == ("degraded", "broker must not run")
        explanation = agent.hub.explain(shop()[1].name)
        assert explanation
        assert explanation.root == "broker"
        assert explanation.next_step == "extsloaderctl start broker"
        assert await order(agent, Verb.START, "broker") is Result.ACCEPTED
        await agent.until_state("ready")


async def test_a_device_without_an_optional_service_is_ready_and_says_so() -> None:
    machine = FakeMachine()
    async with running(machine, builders.world()) as agent:
        machine.plug(stick())
        await agent.until_state("ready")
        await order(agent, Verb.PAUSE, "web")
        snapshot = await agent.until_service("web", "paused")
        assert (snapshot.state, snapshot.reason) == (
            "ready",
            "all 2 services are ready, 1 must not run",
        )


async def test_a_restart_is_another_process_on_the_same_mounts() -> None:
    machine = FakeMachine()
    async with running(machine, builders.world()) as agent:
        machine.plug(stick())
        await agent.until_state("ready")
        first, mounts = agent.service("broker").pid, list(machine.applied)
        assert await order(agent, Verb.RESTART, "broker") is Result.ACCEPTED
        await agent.until(lambda s: s.state == "ready" and agent.service("broker").restarts == 1)
        assert agent.service("broker").pid != first
        assert machine.applied == mounts
        assert "signal telemetry SIGTERM" not in machine.calls


def next_world(machine: FakeMachine, boot: str) -> World:
    world = builders.world()
    world = replace(world, machine=replace(world.machine, boot=boot))
    return begin(world, machine.ports().history.read().value, (), 0.0)


async def test_a_pause_survives_a_reboot() -> None:
    machine = FakeMachine()
    async with running(machine, next_world(machine, "first boot")) as agent:
        machine.plug(stick())
        await agent.until_state("ready")
        await order(agent, Verb.PAUSE, "web")
        await order(agent, Verb.STOP, "telemetry")
        await agent.until_service("web", "paused")
        await agent.until(lambda _: "paused" in str(machine.history[-1:]))
    async with running(machine, next_world(machine, "second boot")) as agent:
        machine.plug(stick())
        await agent.until_state("ready")
        assert agent.states() == {"broker": "ready", "telemetry": "ready", "web": "paused"}


async def test_a_new_configuration_stops_and_starts_what_it_must() -> None:
    machine = FakeMachine()
    async with running(machine, builders.world()) as agent:
        machine.plug(stick())
        await agent.until_state("ready")
        machine.settings = Settings(rollout=Rollout(deny=("web",)))
        assert await order(agent, Verb.RELOAD) is Result.ACCEPTED
        await agent.until_service("web", "excluded")
        machine.settings = ("x.toml: rollout.deny: expected a list, got 7",)
        assert await order(agent, Verb.RELOAD) is Result.REFUSED
        snapshot = agent.snapshot()
        assert agent.service("web").state == "excluded", "the old one stays in force"
        assert "x.toml: rollout.deny" in snapshot.problems[0].message
        machine.settings = Settings()
        await order(agent, Verb.RELOAD)
        await agent.until_state("ready")
        assert [c for c in machine.calls if c.startswith("signal")] == ["signal web SIGTERM"]


async def test_switched_off_and_on_again() -> None:
    machine = FakeMachine()
    async with running(machine, builders.world()) as agent:
        machine.plug(stick())
        await agent.until_state("ready")
        machine.settings = Settings(enabled=False)
        await order(agent, Verb.RELOAD)
        await agent.until(lambda s: s.state == "disabled" and not s.services)
        assert machine.is_clean()
        machine.settings = Settings()
        await order(agent, Verb.RELOAD)
        await agent.until_state("ready")
