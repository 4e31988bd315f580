"""Old images, twins and wrong clocks, over several lives of an agent on one device."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from extsloader.model.control import Result, Verb
from extsloader.model.errors import MachineError
from extsloader.model.events import Cause, CauseKind
from extsloader.model.manifest import StoredImage
from extsloader.model.reasons import Code, Problem
from extsloader.model.source import SourceKind
from extsloader.model.status import StatusSnapshot
from extsloader.model.trust import Bounds, Flag, Release
from extsloader.model.world import World
from extsloader.runtime.memory_work import recall
from tests.fakes import builders
from tests.fakes.machine import FakeMachine, Medium
from tests.fakes.playbook import Agent, running

SERVICE = builders.service("a", essential=True)
OLD, NEW = (builders.stored(SERVICE, sequence=sequence) for sequence in (1, 2))


def stick(image: StoredImage, path: str = "/dev/sdb") -> Medium:
    return Medium(source=builders.source(path), superblock=builders.squashfs(), verdict=image)


def awakened(machine: FakeMachine, *baked: Release) -> World:
    """The world of an agent that has just started on this machine."""
    found = recall(machine.ports())
    return builders.world(
        bounds=Bounds(memory=found.memory, clock=found.clock, baked=baked),
        stale_memory=found.stale,
        problems=found.problems,
    )


@asynccontextmanager
async def life(machine: FakeMachine, *baked: Release) -> AsyncIterator[Agent]:
    async with running(machine, awakened(machine, *baked)) as agent:
        yield agent


def code(agent: Agent, device: str) -> Code | None:
    return {c.device: c.code for c in agent.snapshot().candidates}[device]


async def run_well(machine: FakeMachine, image: StoredImage) -> None:
    """A whole life in which the image passes its probation."""
    async with life(machine) as agent:
        machine.plug(stick(image))
        await agent.until(lambda s: bool(s.floors))
        machine.pull("/dev/sdb")


async def test_after_a_probation_the_old_image_never_comes_back() -> None:
    machine = FakeMachine()
    await run_well(machine, NEW)
    async with life(machine) as agent:
        machine.plug(stick(OLD))
        await agent.until_verdict("/dev/sdb", "refused")
        assert code(agent, "/dev/sdb") is Code.ROLLBACK
        assert agent.snapshot().floors == (Release(name="pkgs", sequence=2, digest=NEW.digest),)
        machine.plug(stick(NEW, "/dev/sdc"))
        await agent.until_state("ready")


async def test_the_floor_rises_after_the_time_of_probation_and_not_before() -> None:
    machine = FakeMachine()
    async with life(machine) as agent:
        machine.plug(stick(NEW))
        await agent.until_state("ready")
        ready = agent.now().now
        await agent.until(lambda s: bool(s.floors))
        assert 600 <= agent.now().now - ready < 601


async def test_an_image_that_keeps_failing_never_raises_the_floor() -> None:
    machine = FakeMachine()
    async with life(machine) as agent:
        machine.plug(stick(NEW))
        for _ in range(5):
            await agent.until_state("ready")
            machine.end("a", Cause(CauseKind.CODE, 1))
            await agent.until_service("a", "backing-off")
        machine.behave("a").exits = Cause(CauseKind.CODE, 1)
        await agent.until_service("a", "parked")
        assert agent.now().now > 600
    async with life(machine) as agent:
        machine.behave("a").exits = None
        machine.plug(stick(OLD))
        await agent.until_state("ready")


async def test_a_twin_is_refused_also_after_a_restart() -> None:
    machine = FakeMachine()
    twin = builders.stored(SERVICE, sequence=2, digest="e" * 64)
    async with life(machine) as agent:
        machine.plug(stick(NEW))
        await agent.until_state("ready")
        machine.pull("/dev/sdb")
    async with life(machine) as agent:
        machine.plug(stick(twin))
        await agent.until_verdict("/dev/sdb", "refused")
        assert code(agent, "/dev/sdb") is Code.EQUIVOCATION


async def test_one_damaged_copy_changes_nothing() -> None:
    machine = FakeMachine()
    await run_well(machine, NEW)
    machine.memory[0].damaged = True
    async with life(machine) as agent:
        machine.plug(stick(OLD))
        await agent.until_verdict("/dev/sdb", "refused")
        assert Flag.FLOOR_LOST not in agent.snapshot().flags
        assert [problem.code for problem in agent.snapshot().problems] == [Code.STATE]
    assert not machine.memory[0].damaged, "it is mended"


async def test_with_both_copies_damaged_the_core_images_floor_holds_until_the_next_probation() -> (
    None
):
    machine = FakeMachine()
    await run_well(machine, NEW)
    for copy in machine.memory:
        copy.damaged = True
    async with life(machine, Release(name="pkgs", sequence=2)) as agent:
        machine.plug(stick(OLD))
        await agent.until_verdict("/dev/sdb", "refused")
        assert Flag.FLOOR_LOST in agent.snapshot().flags
    async with life(machine) as agent:
        assert Flag.FLOOR_LOST in agent.snapshot().flags, "a restart does not heal it"
        machine.plug(stick(NEW))
        await agent.until(lambda s: Flag.FLOOR_LOST not in s.flags)
    assert recall(machine.ports()).memory.floors[0].sequence == 2


async def test_a_full_disk_keeps_no_image_from_running_and_is_told() -> None:
    machine = FakeMachine()
    for copy in machine.memory:
        copy.full = True
    async with life(machine) as agent:
        machine.plug(stick(NEW))
        snapshot = await agent.until(lambda s: s.state == "ready" and bool(s.problems))
        assert (
            snapshot.problems[0].message == "cannot write the state file: no space left on device"
        )


async def test_h065_an_implausible_floor_holds_and_is_told_until_newer_keys_come() -> None:
    machine = FakeMachine()
    forged = f'{{"floors": [{{"name": "pkgs", "sequence": {2**63 - 1}}}]}}'
    machine.memory[1].content = forged.encode()
    async with life(machine) as agent:
        assert Flag.FLOOR_IMPLAUSIBLE in agent.snapshot().flags
        machine.plug(stick(NEW))
        await agent.until_verdict("/dev/sdb", "refused")
        assert code(agent, "/dev/sdb") is Code.ROLLBACK
    async with life(machine, Release(name="pkgs", sequence=1)) as agent:
        machine.plug(stick(replace(NEW, key_epoch=1)))
        snapshot = await agent.until_state("ready")
        assert Flag.FLOOR_IMPLAUSIBLE not in snapshot.flags
    assert recall(machine.ports()).memory.key_epoch == 1


async def test_h059_a_signed_time_makes_a_clock_of_earlier_unsure_and_stops_nothing() -> None:
    machine = FakeMachine()
    async with life(machine) as agent:
        assert Flag.CLOCK_UNSURE not in agent.snapshot().flags
        machine.plug(stick(NEW))
        snapshot = await agent.until_state("ready")
        assert Flag.CLOCK_UNSURE in snapshot.flags
    assert recall(machine.ports()).clock == 1767225600.0


async def test_an_image_that_is_revoked_while_it_runs_gives_way_to_another_one() -> None:
    machine = FakeMachine()
    async with life(machine) as agent:
        machine.plug(stick(NEW))
        await agent.until_state("ready")
        machine.plug(stick(OLD, "/dev/sdc"))
        await agent.until_verdict("/dev/sdc", "verified")
        machine.revoked.add(NEW.digest)
        answer = await agent.control.ask(Verb.RELOAD, "", 0)
        assert answer.message == "changed: revoked_images"
        await agent.until(
            lambda s: s.state == "ready" and s.image is not None and s.image.digest == OLD.digest
        )
        assert code(agent, "/dev/sdb") is Code.REVOKED
    assert machine.stored == {OLD.digest}


async def test_a_policy_that_cannot_be_read_changes_nothing() -> None:
    machine = FakeMachine()
    async with life(machine) as agent:
        machine.plug(stick(NEW))
        await agent.until_state("ready")
        machine.policy_fails = MachineError(Code.KEYS, "use policy.json", "no object")
        answer = await agent.control.ask(Verb.RELOAD, "", 0)
        assert (answer.result, answer.message) == (
            Result.REFUSED,
            "cannot use policy.json: no object",
        )
        assert agent.snapshot().state == "ready"


async def test_a_revoked_image_in_the_store_is_deleted() -> None:
    machine = FakeMachine()
    machine.stored.add(NEW.digest)
    kept = builders.source(f"/store/{NEW.digest}.img", kind=SourceKind.STORED)
    refusal = Problem(Code.REVOKED, "cannot accept it: revoked")
    machine.plug(Medium(source=kept, superblock=builders.squashfs(), verdict=refusal))
    async with life(machine) as agent:
        await agent.until_verdict(kept.id.path, "refused")
    assert not machine.stored


async def test_a_pinned_image_brings_its_services_and_goes_before_signed_ones() -> None:
    machine = FakeMachine()
    machine.services = (builders.service("b"), builders.service("c"))
    pinned = replace(builders.stored(digest="e" * 64), pinned=True)
    machine.plug(stick(NEW))
    machine.plug(stick(pinned, "/dev/sdc"))
    async with life(machine) as agent:
        snapshot = await agent.until_state("ready")
        assert snapshot.image
        assert snapshot.image.digest == pinned.digest
        assert [service.name for service in snapshot.services] == ["b", "c"]


async def test_a_pinned_image_without_services_is_unmounted_and_another_one_taken() -> None:
    machine = FakeMachine()
    machine.plug(stick(NEW))
    machine.plug(stick(replace(builders.stored(digest="e" * 64), pinned=True), "/dev/sdc"))
    async with life(machine) as agent:
        snapshot = await agent.until_state("ready")
        assert snapshot.image
        assert snapshot.image.digest == NEW.digest
        assert set(machine.mounted) == {NEW.digest}


def active(snapshot: StatusSnapshot) -> str:
    return snapshot.image.digest if snapshot.image else ""


async def test_an_image_that_fails_its_probation_gives_way_to_the_one_before_once() -> None:
    machine = FakeMachine()
    good, bad = (builders.stored(builders.service(n, essential=True), sequence=s)
                 for n, s in (("a", 1), ("b", 2)))  # fmt: skip
    await run_well(machine, good)
    machine.behave("b").exits = Cause(CauseKind.CODE, 1)
    async with life(machine) as agent:
        machine.plug(stick(good))
        machine.plug(stick(bad, "/dev/sdc"))
        await agent.until(lambda s: active(s) == bad.digest)
        snapshot = await agent.until(lambda s: s.state == "ready" and active(s) == good.digest)
        (problem,) = snapshot.problems
        assert problem.code is Code.EXIT
        assert "sequence 2: b gave up before it had run well" in problem.message
        assert [c.reason for c in snapshot.candidates if c.digest == bad.digest] == [
            "it failed before it had run well: used only where there is no other one"
        ]
        remembered = agent.loop.world.history
    assert remembered.failed == (bad.digest,)
    machine.behave("b").exits = None
    async with running(machine, replace(awakened(machine), history=remembered)) as agent:
        snapshot = await agent.until_state("ready")
        assert active(snapshot) == good.digest, "it is not tried again"
        await agent.control.ask(Verb.RESCAN, "", 0)
        forgiven = agent.loop.world.history
    async with running(machine, replace(awakened(machine), history=forgiven)) as agent:
        await agent.until(lambda s: s.state == "ready" and active(s) == bad.digest)
        await agent.until(lambda s: [f.sequence for f in s.floors] == [2])


async def test_where_both_fail_the_second_one_stays() -> None:
    machine = FakeMachine()
    machine.behave("a").exits = Cause(CauseKind.CODE, 1)
    async with life(machine) as agent:
        machine.plug(stick(OLD))
        machine.plug(stick(NEW, "/dev/sdc"))
        await agent.until(lambda s: active(s) == OLD.digest)
        await agent.until_service("a", "parked")
        snapshot = await agent.until_state("failed")
        assert (active(snapshot), len(snapshot.problems)) == (OLD.digest, 1)


async def test_an_image_that_ran_well_once_is_not_left() -> None:
    machine = FakeMachine()
    async with life(machine) as agent:
        machine.plug(stick(NEW))
        await agent.until(lambda s: bool(s.floors))
        newer = builders.stored(SERVICE, sequence=3)
        machine.plug(stick(newer, "/dev/sdc"))
        await agent.until_verdict("/dev/sdc", "verified")
        machine.behave("a").exits = Cause(CauseKind.CODE, 1)
        machine.end("a", Cause(CauseKind.CODE, 1))
        await agent.until_service("a", "parked")
        assert active(agent.snapshot()) == NEW.digest
