"""The disk goes bad under an image that runs: it is told, and nothing that runs is disturbed."""

from extsloader.model.events import Cause, CauseKind
from extsloader.model.machine import Machine
from extsloader.model.manifest import Restart, RestartPolicy
from extsloader.model.reasons import Code, Problem
from extsloader.model.settings import Settings
from extsloader.model.world import World
from tests.fakes import builders
from tests.fakes.machine import FakeMachine, Medium
from tests.fakes.playbook import running

BUS_ERROR = Cause(CauseKind.SIGNAL, 7)
IMAGE = builders.stored(
    builders.service("reader", essential=True, restart=Restart(policy=RestartPolicy.NEVER)),
    builders.service("bystander"),
)


def world(integrity: str = "auto", no_verity: str = "") -> World:
    return builders.world(
        settings=Settings(integrity=integrity),
        machine=Machine(arch="amd64", no_verity=no_verity),
    )


def stick() -> Medium:
    return Medium(source=builders.source(), superblock=builders.squashfs(), verdict=IMAGE)


async def test_damage_is_found_within_a_minute_and_disturbs_nobody() -> None:
    machine = FakeMachine()
    async with running(machine, world()) as agent:
        machine.plug(stick())
        assert (await agent.until_state("ready")).problems == ()
        machine.damaged.add(IMAGE.digest)
        snapshot = await agent.until_state("degraded")
        assert snapshot.problems[0].code is Code.VERITY
        assert agent.states() == {"reader": "ready", "bystander": "ready"}
        assert agent.history(f"image {IMAGE.digest[:12]}")[-1] == "damaged"
        assert IMAGE.digest in machine.stored
    assert IMAGE.digest not in machine.stored, "it is not trusted at the next start"
    assert f"drop {IMAGE.digest}" in machine.calls


async def test_a_service_that_dies_of_it_names_the_damage_at_once() -> None:
    machine = FakeMachine()
    async with running(machine, world()) as agent:
        machine.plug(stick())
        before = agent.now().now
        await agent.until_state("ready")
        machine.damaged.add(IMAGE.digest)
        machine.end("reader", BUS_ERROR)
        snapshot = await agent.until(lambda s: s.state == "failed" and bool(s.problems))
        assert agent.now().now - before < 5
        assert "essential reader is parked" in snapshot.reason
        assert "cannot trust the image" in snapshot.reason or "bad block" in snapshot.reason
        assert agent.states()["bystander"] == "ready"


async def test_a_good_image_is_looked_at_again_and_again() -> None:
    machine = FakeMachine()
    async with running(machine, world()) as agent:
        machine.plug(stick())
        await agent.until(lambda _: machine.calls.count("check") >= 3)
        assert agent.now().now >= 120
        assert agent.snapshot().state == "ready"


async def test_without_dm_verity_nobody_is_asked() -> None:
    machine = FakeMachine()
    async with running(machine, world(no_verity="this kernel has none")) as agent:
        machine.plug(stick())
        snapshot = await agent.until_state("ready")
        assert snapshot.image
        assert snapshot.image.integrity == "store"
        machine.end("bystander", BUS_ERROR)
        await agent.until_service("bystander", "backing-off")
        await agent.until_state("ready")
    assert "check" not in machine.calls


async def test_verity_that_cannot_be_had_is_a_failure_with_its_reason() -> None:
    machine = FakeMachine()
    machine.mount_fails = Problem(Code.MOUNT, "there is no device-mapper", "load it")
    async with running(machine, world("verity", "this kernel has none")) as agent:
        machine.plug(stick())
        snapshot = await agent.until_state("failed")
        assert "there is no device-mapper" in snapshot.reason
