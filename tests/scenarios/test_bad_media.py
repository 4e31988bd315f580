"""Bad media: each has a verdict with a reason, and nothing that runs notices."""

import asyncio

from extsloader.model.manifest import StoredImage
from extsloader.model.reasons import Code, Problem
from extsloader.model.settings import Settings, Timeouts
from extsloader.model.source import FsType, Superblock
from tests.fakes import builders
from tests.fakes.machine import FakeMachine, Medium
from tests.fakes.playbook import running


def stick(verdict: StoredImage | Problem, path: str = "/dev/sdb", generation: str = "1") -> Medium:
    return Medium(
        source=builders.source(path, generation), superblock=builders.squashfs(), verdict=verdict
    )


def fat_stick(file: str) -> Medium:
    superblock = Superblock(fs_type=FsType.VFAT, label="STICK", file=file)
    verdict = builders.stored(builders.service("a"))
    return Medium(source=builders.source("/dev/sdb1"), superblock=superblock, verdict=verdict)


UNSIGNED = Problem(Code.SIGNATURE, "cannot trust /dev/sdb: no accepted key signed it")
FLAKY = Problem(Code.IO, "cannot read /dev/sdb: input/output error")


async def test_a_stick_with_the_image_as_a_file_says_which_file_runs() -> None:
    machine = FakeMachine()
    async with running(machine, builders.world()) as agent:
        machine.plug(fat_stick("rootfs-pkgs.img"))
        snapshot = await agent.until_state("ready")
        assert snapshot.image is not None
        assert snapshot.image.source == "/dev/sdb1:rootfs-pkgs.img"


async def test_a_stick_with_other_files_is_looked_at_once_and_is_no_refusal() -> None:
    machine = FakeMachine()
    async with running(machine, builders.world()) as agent:
        machine.plug(fat_stick(""))
        snapshot = await agent.until_verdict("/dev/sdb1", "ignored")
        assert (snapshot.state, snapshot.reason) == ("searching", "no image found yet")
        machine.lose_events()
        machine.plug(stick(builders.stored(builders.service("a")), "/dev/sdc"))
        await agent.until_state("ready")
        assert machine.calls.count("probe /dev/sdb1") == 1
        assert "verify /dev/sdb1" not in machine.calls


async def test_a_refused_stick_leaves_running_services_alone() -> None:
    machine = FakeMachine()
    async with running(machine, builders.world()) as agent:
        machine.plug(stick(builders.stored(builders.service("a"))))
        await agent.until_state("ready")
        machine.plug(stick(UNSIGNED, "/dev/sdc"))
        snapshot = await agent.until_verdict("/dev/sdc", "refused")
        assert snapshot.state == "ready"
        assert snapshot.candidates[-1].code is Code.SIGNATURE
        assert agent.service("a").restarts == 0


async def test_h085_a_new_image_with_a_cycle_leaves_the_old_one_alone() -> None:
    machine = FakeMachine()
    cyclic = Problem(Code.DAG, "cannot order the services: a -> a is a cycle")
    async with running(machine, builders.world()) as agent:
        machine.plug(stick(builders.stored(builders.service("a"))))
        await agent.until_state("ready")
        before = list(machine.calls)
        machine.plug(stick(cyclic, "/dev/sdc"))
        snapshot = await agent.until_verdict("/dev/sdc", "refused")
        assert (snapshot.state, snapshot.candidates[-1].code) == ("ready", Code.DAG)
        assert machine.calls[len(before) :] == ["probe /dev/sdc", "verify /dev/sdc"]


async def test_a_refusal_is_the_reason_while_nothing_else_is_found() -> None:
    machine = FakeMachine()
    async with running(machine, builders.world()) as agent:
        machine.plug(stick(UNSIGNED))
        snapshot = await agent.until_verdict("/dev/sdb", "refused")
        assert snapshot.state == "searching"
        assert "E_SIGNATURE" in snapshot.reason


async def test_a_flaky_stick_is_tried_again_and_given_up() -> None:
    machine = FakeMachine()
    async with running(machine, builders.world()) as agent:
        machine.plug(stick(FLAKY))
        await agent.until_verdict("/dev/sdb", "refused")
        tries = builders.world().settings.timeouts.retry_limit
        assert machine.calls.count("verify /dev/sdb") == tries


async def test_a_stick_that_recovers_is_taken() -> None:
    machine = FakeMachine()
    medium = stick(FLAKY)
    async with running(machine, builders.world()) as agent:
        machine.plug(medium)
        await agent.until_verdict("/dev/sdb", "retrying")
        medium.verdict = builders.stored(builders.service("a"))
        await agent.until_state("ready")


async def test_a_stick_pulled_while_it_is_read_is_gone_and_its_helper_killed() -> None:
    machine = FakeMachine()
    medium = stick(builders.stored(builders.service("a")))
    medium.held.clear()
    async with running(machine, builders.world()) as agent:
        machine.plug(medium)
        await agent.until_verdict("/dev/sdb", "verifying")
        machine.pull("/dev/sdb")
        snapshot = await agent.until_verdict("/dev/sdb", "refused")
        assert snapshot.candidates[0].code is Code.GONE
        assert not snapshot.candidates[0].present


async def test_another_stick_in_the_same_place_is_another_candidate() -> None:
    machine = FakeMachine()
    first = stick(builders.stored(builders.service("a")), generation="1")
    first.held.clear()
    async with running(machine, builders.world()) as agent:
        machine.plug(first)
        await agent.until_verdict("/dev/sdb", "verifying")
        machine.plug(stick(builders.stored(builders.service("b"), sequence=2), generation="2"))
        await agent.until_state("ready")
        assert agent.states() == {"b": "ready"}
        verdicts = {c.generation: c.verdict for c in agent.snapshot().candidates}
        assert verdicts == {"1": "refused", "2": "verified"}


async def test_a_pulled_stick_leaves_its_stored_image_running() -> None:
    machine = FakeMachine()
    async with running(machine, builders.world()) as agent:
        machine.plug(stick(builders.stored(builders.service("a"))))
        await agent.until_state("ready")
        machine.pull("/dev/sdb")
        snapshot = await agent.until(lambda s: s.image is not None and not s.image.source_present)
        assert snapshot.state == "ready"


async def test_the_newest_of_several_sticks_wins_even_if_it_is_slow() -> None:
    machine = FakeMachine()
    slow = stick(builders.stored(builders.service("new"), sequence=9), "/dev/sdc")
    slow.held.clear()
    async with running(machine, builders.world()) as agent:
        machine.plug(slow)
        machine.plug(stick(builders.stored(builders.service("old"), sequence=3)))
        await agent.until_verdict("/dev/sdb", "verified")
        slow.held.set()
        await agent.until_state("ready")
        assert agent.states() == {"new": "ready"}


async def test_a_stick_that_hangs_does_not_hold_up_a_good_one() -> None:
    machine = FakeMachine()
    stuck = stick(builders.stored(builders.service("new"), sequence=9), "/dev/sdc")
    stuck.held.clear()
    async with running(machine, builders.world()) as agent:
        machine.plug(stuck)
        machine.plug(stick(builders.stored(builders.service("old"), sequence=3)))
        await agent.until_state("ready")
        assert agent.states() == {"old": "ready"}
        assert asyncio.get_running_loop().time() <= 3


async def test_a_newer_image_stands_by_and_says_so() -> None:
    machine = FakeMachine()
    async with running(machine, builders.world()) as agent:
        machine.plug(stick(builders.stored(builders.service("a"), sequence=1)))
        await agent.until_state("ready")
        newer = builders.stored(builders.service("a"), sequence=2)
        machine.plug(stick(newer, "/dev/sdc"))
        snapshot = await agent.until_verdict("/dev/sdc", "verified")
        assert snapshot.candidates[-1].reason == (
            "newer than the active image (2 > 1): used at the agent's next start"
        )
        assert "start a" in machine.calls
        assert machine.calls.count("start a") == 1


async def test_the_store_keeps_few_images() -> None:
    machine = FakeMachine()
    async with running(machine, builders.world()) as agent:
        for number in range(1, 5):
            image = builders.stored(builders.service("a"), sequence=number)
            machine.plug(stick(image, f"/dev/sd{number}"))
            await agent.until_verdict(f"/dev/sd{number}", "verified")
    assert sum(call.startswith("drop") for call in machine.calls) == 2


async def test_an_image_that_cannot_be_mounted_makes_room_for_another() -> None:
    machine = FakeMachine()
    machine.mount_fails = Problem(Code.IMAGE_FS, "bad superblock")
    async with running(machine, builders.world()) as agent:
        machine.plug(stick(builders.stored(builders.service("a"), sequence=2)))
        snapshot = await agent.until_state("failed")
        assert "bad superblock" in snapshot.reason
        machine.mount_fails = None
        machine.plug(stick(builders.stored(builders.service("b"), sequence=1), "/dev/sdc"))
        await agent.until_state("ready")


async def test_an_image_that_cannot_be_mounted_now_is_mounted_once_it_can() -> None:
    machine = FakeMachine()
    machine.mount_fails = Problem(Code.MOUNT, "no loop device is free")
    settings = Settings(timeouts=Timeouts(retry_base=0.01))
    async with running(machine, builders.world(settings=settings)) as agent:
        machine.plug(stick(builders.stored(builders.service("a"))))
        assert "no loop device is free" in (await agent.until_state("failed")).reason
        machine.mount_fails = None
        await agent.until_state("ready")


async def test_lost_events_lead_to_a_new_listing_that_tells_the_truth() -> None:
    machine = FakeMachine()
    medium = stick(builders.stored(builders.service("a")))
    async with running(machine, builders.world()) as agent:
        await agent.until(lambda _: "list" in machine.calls)
        machine.media[medium.source.id] = medium  # the kernel's event about it was lost
        machine.lose_events()
        await agent.until_state("ready")
        machine.media.clear()
        machine.lose_events()
        await agent.until(lambda s: not s.candidates[0].present)


async def test_a_surprise_in_an_adapter_becomes_a_refusal_and_the_agent_lives_on() -> None:
    machine = FakeMachine()
    async with running(machine, builders.world()) as agent:
        await agent.until(lambda _: "list" in machine.calls)
        machine.plug(stick(builders.stored(builders.service("a"))))
        machine.media.clear()  # the fake's KeyError stands for any bug in an adapter
        snapshot = await agent.until_verdict("/dev/sdb", "refused")
        assert snapshot.candidates[0].code is Code.STATE
        assert "KeyError" in snapshot.candidates[0].reason
        machine.plug(stick(builders.stored(builders.service("b")), "/dev/sdc"))
        await agent.until_state("ready")


async def test_a_helper_that_ended_before_it_could_be_killed_changes_nothing() -> None:
    machine = FakeMachine()
    async with running(machine, builders.world()) as agent:
        machine.plug(stick(builders.stored(builders.service("a"))))
        await agent.until_verdict("/dev/sdb", "verifying")
        machine.pull("/dev/sdb")  # the fake's helper ends at once, with its report on the way
        await agent.until(lambda s: not s.candidates[0].present)
