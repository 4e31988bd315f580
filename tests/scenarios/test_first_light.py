"""A good image becomes running services, in order."""

import asyncio
import json

import pytest

from extsloader.model.events import Cause, CauseKind
from extsloader.model.ids import ServiceName
from extsloader.model.manifest import ProbeKind, Readiness, Restart, RestartPolicy, Service
from extsloader.model.reasons import Code, Problem
from extsloader.model.source import FsType, Superblock
from tests.fakes import builders
from tests.fakes.machine import CONFIG, FakeMachine, Medium
from tests.fakes.playbook import running

OOM = Cause(CauseKind.OOM, 9)
CRASH = Cause(CauseKind.CODE, 7)
BY_TCP = Readiness(kind=ProbeKind.TCP, port=1, timeout=30)


def stick(*services: Service, path: str = "/dev/sdb", sequence: int = 1) -> Medium:
    return Medium(
        source=builders.source(path, str(sequence)),
        superblock=builders.squashfs(),
        verdict=builders.stored(*services, sequence=sequence),
    )


def shop() -> tuple[Service, ...]:
    return (
        builders.service("dashboard", wants=["telemetry"]),
        builders.service("telemetry", requires=["broker", "exporter"]),
        builders.service("broker", readiness=BY_TCP),
        builders.service("exporter"),
    )


async def test_a_stick_is_found_verified_mounted_and_its_services_start_in_order() -> None:
    machine = FakeMachine()
    async with running(machine, builders.world()) as agent:
        assert (await agent.until_state("searching")).reason == "no image found yet"
        machine.plug(stick(*shop()))
        snapshot = await agent.until_state("ready")
    assert snapshot.reason == "all 4 services are ready"
    assert snapshot.image is not None
    assert snapshot.image.source == "/dev/sdb"
    starts = [call for call in machine.calls if call.startswith("start")]
    assert starts.index("start telemetry") > starts.index("start broker")
    assert starts.index("start telemetry") > starts.index("start exporter")
    assert starts.index("start dashboard") > starts.index("start telemetry")


async def test_the_history_of_the_whole_tells_each_state_once() -> None:
    machine = FakeMachine()
    async with running(machine, builders.world()) as agent:
        machine.plug(stick(*shop()))
        await agent.until_state("ready")
        history = agent.history("agent")
    assert history == ["verifying", "activating", "ready"]


async def test_services_stop_in_reverse_order_before_the_image_is_unmounted() -> None:
    machine = FakeMachine()
    async with running(machine, builders.world()) as agent:
        machine.plug(stick(*shop()))
        await agent.until_state("ready")
        machine.calls.clear()
    signals = [call.split()[1] for call in machine.calls if call.startswith("signal")]
    assert signals[:2] == ["dashboard", "telemetry"]
    assert set(signals[2:]) == {"broker", "exporter"}
    assert machine.calls[-1] == "unmount"


async def test_h084_containers_are_created_ahead_of_their_dependencies() -> None:
    machine = FakeMachine()
    machine.behave("broker").ready = False
    async with running(machine, builders.world()) as agent:
        machine.plug(stick(*shop()))
        await agent.until_service("telemetry", "blocked")
        await agent.until(
            lambda s: "ready" in {x.state for x in s.services if x.name == "exporter"}
        )
        assert "create telemetry" in machine.calls
        assert "start telemetry" not in machine.calls
        assert agent.service("telemetry").waiting_for == ("broker",)
        assert agent.service("telemetry").reason == "waits for broker"
        machine.behave("broker").ready = True
        await agent.until_state("ready")


async def test_h084_a_service_that_is_never_ready_is_stopped_and_tried_again_later() -> None:
    machine = FakeMachine()
    machine.behave("broker").ready = False
    async with running(machine, builders.world(), dice=0.5) as agent:
        machine.plug(stick(*shop()))
        await agent.until_service("broker", "backing-off")
        broker = agent.service("broker")
        assert broker.code is Code.READINESS
        assert broker.reason == "cannot call broker ready within 30 s: tcp says no"
        assert "signal broker SIGTERM" in machine.calls
        assert agent.service("exporter").state == "ready"
        assert agent.snapshot().state == "degraded"


async def test_a_crashing_service_backs_off_and_gives_up_at_its_limit() -> None:
    machine = FakeMachine()
    machine.behave("worker").exits = CRASH
    worker = builders.service("worker", restart=Restart(base=1, cap=8, jitter=0, limit=5))
    async with running(machine, builders.world()) as agent:
        machine.plug(stick(worker, builders.service("other")))
        await agent.until_service("worker", "parked")
        assert machine.calls.count("start worker") == 6
        # 1 + 2 + 4 + 8 + 8 seconds, virtual ones
        assert asyncio.get_running_loop().time() == pytest.approx(23, abs=0.1)
        status = agent.service("worker")
        assert status.reason == (
            "cannot keep worker running: exit code 7; gave up after 5 failures in a row"
        )
        assert agent.service("other").state == "ready"
        assert agent.snapshot().state == "degraded"
        explanation = agent.hub.explain(worker.name)
        assert explanation is not None
        assert "exit code 7" in explanation.summary


async def test_an_essential_service_that_gives_up_makes_the_whole_fail() -> None:
    machine = FakeMachine()
    machine.behave("core").exits = CRASH
    core = builders.service("core", essential=True, restart=Restart(limit=1))
    async with running(machine, builders.world()) as agent:
        machine.plug(stick(core))
        assert (await agent.until_state("failed")).reason == "essential core is parked"


async def test_a_long_run_resets_the_back_off() -> None:
    machine = FakeMachine()
    worker = builders.service("worker", restart=Restart(base=1, jitter=0, limit=2, reset_after=60))
    async with running(machine, builders.world()) as agent:
        machine.plug(stick(worker))
        for _ in range(4):
            await agent.until_service("worker", "ready")
            later = asyncio.Event()
            asyncio.get_running_loop().call_later(61, later.set)
            await later.wait()
            machine.end("worker", CRASH)
            await agent.until_service("worker", "backing-off")
        await agent.until_service("worker", "ready")
        assert agent.service("worker").restarts == 4


async def test_out_of_memory_is_told_apart_from_a_crash() -> None:
    machine = FakeMachine()
    async with running(machine, builders.world()) as agent:
        machine.plug(stick(builders.service("hungry")))
        await agent.until_service("hungry", "ready")
        machine.end("hungry", OOM)
        await agent.until_service("hungry", "backing-off")
        assert agent.service("hungry").code is Code.RESOURCE
        assert "memory" in agent.service("hungry").reason


async def test_a_required_service_that_crashes_does_not_take_its_users_down() -> None:
    machine = FakeMachine()
    async with running(machine, builders.world()) as agent:
        machine.plug(stick(*shop()))
        await agent.until_state("ready")
        machine.end("broker", CRASH)
        await agent.until_service("broker", "removing")
        assert agent.service("telemetry").state == "ready"
        assert agent.service("telemetry").waiting_for == ("broker",)
        await agent.until_state("ready")
        assert machine.calls.count("start telemetry") == 1


async def test_a_required_service_that_gives_up_takes_its_users_down_first() -> None:
    machine = FakeMachine()
    services = (
        builders.service("user", requires=["base"]),
        builders.service("base", restart=Restart(policy=RestartPolicy.NEVER)),
    )
    async with running(machine, builders.world()) as agent:
        machine.plug(stick(*services))
        await agent.until_state("ready")
        machine.end("base", CRASH)
        snapshot = await agent.until_service("user", "blocked")
        assert snapshot.state == "degraded"
        explanation = agent.hub.explain(services[0].name)
        assert explanation is not None
        assert explanation.summary.startswith("user is blocked because base is parked")


async def test_a_finished_service_counts_as_ready() -> None:
    machine = FakeMachine()
    machine.behave("setup").exits = Cause(CauseKind.CODE, 0)
    services = (
        builders.service("setup", restart=Restart(policy=RestartPolicy.ON_FAILURE)),
        builders.service("main", requires=["setup"]),
    )
    async with running(machine, builders.world()) as agent:
        machine.plug(stick(*services))
        await agent.until_state("ready")
        assert agent.states() == {"setup": "finished", "main": "ready"}


async def test_a_service_that_ignores_sigterm_is_killed_after_its_grace_time() -> None:
    machine = FakeMachine()
    machine.behave("deaf").deaf = True
    async with running(machine, builders.world()) as agent:
        machine.plug(stick(builders.service("deaf")))
        await agent.until_state("ready")
    assert machine.calls.index("signal deaf SIGTERM") < machine.calls.index("kill deaf")


async def test_a_service_that_cannot_be_created_leaves_the_others_alone() -> None:
    machine = FakeMachine()
    machine.behave("bad").create_fails = Problem(Code.RUNTIME, "no such file")
    async with running(machine, builders.world()) as agent:
        machine.plug(stick(builders.service("bad"), builders.service("good")))
        await agent.until_service("bad", "backing-off")
        assert agent.service("bad").code is Code.RUNTIME
        assert agent.service("good").state == "ready"


async def test_an_unreadable_bundle_parks_one_service() -> None:
    machine = FakeMachine()
    machine.behave("bad").unreadable = True
    async with running(machine, builders.world()) as agent:
        machine.plug(stick(builders.service("bad"), builders.service("good")))
        await agent.until_service("good", "ready")
        assert agent.states() == {"bad": "parked", "good": "ready"}
        assert agent.service("bad").code is Code.BUNDLE


async def test_a_service_beyond_the_ceiling_fails_and_only_what_needs_it_waits() -> None:
    machine = FakeMachine()
    greedy = json.loads(CONFIG) | {"mounts": [{"destination": "/x", "type": "ext4"}]}
    machine.behave("greedy").config = json.dumps(greedy)
    services = (
        builders.service("greedy"),
        builders.service("user", requires=(ServiceName("greedy"),)),
        builders.service("good"),
    )
    async with running(machine, builders.world()) as agent:
        machine.plug(stick(*services))
        await agent.until_service("good", "ready")
        assert agent.states() == {"greedy": "parked", "user": "blocked", "good": "ready"}
        assert agent.service("greedy").code is Code.BUNDLE
        assert "beyond profile default: 'ext4' mount at '/x'" in agent.service("greedy").reason


async def test_readiness_by_notify_may_overtake_the_runtime() -> None:
    machine = FakeMachine()
    notifying = Readiness(kind=ProbeKind.NOTIFY)
    async with running(machine, builders.world()) as agent:
        machine.plug(stick(builders.service("quick", readiness=notifying)))
        await agent.until_service("quick", "starting")
        machine.notifiers["quick"]()
        await agent.until_state("ready")


async def test_a_running_service_is_adopted_after_a_restart_of_the_agent() -> None:
    machine = FakeMachine()
    machine.running.add("broker")
    machine.containers["broker"] = 77
    machine.origins["broker"] = builders.stored(sequence=1).digest
    async with running(machine, builders.world()) as agent:
        machine.plug(stick(*shop()))
        await agent.until_state("ready")
        assert agent.service("broker").pid == 77
        assert "start broker" not in machine.calls


def survivor(machine: FakeMachine, service: str) -> Service:
    """A service with readiness by notify that an earlier agent had started."""
    machine.running.add(service)
    machine.containers[service] = 77
    machine.origins[service] = builders.stored(sequence=1).digest
    return builders.service(service, readiness=Readiness(kind=ProbeKind.NOTIFY, timeout=30))


async def test_an_adopted_service_that_had_said_ready_is_ready() -> None:
    machine = FakeMachine()
    machine.heard.add("quick")
    async with running(machine, builders.world()) as agent:
        machine.plug(stick(survivor(machine, "quick")))
        await agent.until_state("ready")
        assert agent.service("quick").pid == 77


async def test_an_adopted_service_that_had_not_said_ready_still_has_to() -> None:
    machine = FakeMachine()
    async with running(machine, builders.world()) as agent:
        machine.plug(stick(survivor(machine, "slow")))
        await agent.until_service("slow", "started")
        machine.notify("slow")
        await agent.until_state("ready")
        assert agent.service("slow").pid == 77


async def test_a_device_without_squashfs_is_ignored_and_says_why() -> None:
    machine = FakeMachine()
    medium = stick(builders.service("x"))
    medium.superblock = Superblock(fs_type=FsType.NTFS, label="DATA")
    async with running(machine, builders.world()) as agent:
        machine.plug(medium)
        snapshot = await agent.until_verdict("/dev/sdb", "ignored")
        assert snapshot.candidates[0].code is Code.FS_TYPE
    assert "verify /dev/sdb" not in machine.calls
