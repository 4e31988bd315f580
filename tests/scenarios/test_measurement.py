"""A TPM knows which image runs before the image's first service does."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from extsloader.core import event_log
from extsloader.model.reasons import Code
from tests.fakes import builders
from tests.fakes.machine import FakeMachine, Medium
from tests.fakes.playbook import Agent, running
from tests.fakes.register import FakeRegister

IMAGE = builders.stored(builders.service("a"), builders.service("b"))
VALUE = event_log.extend(event_log.START, IMAGE.digest)


class Witness(FakeRegister):
    """Writes down when it is extended among all other calls to the machine."""

    def __init__(self, machine: FakeMachine) -> None:
        super().__init__()
        self._machine = machine

    def extend(self, digest: bytes) -> None:
        self._machine.log("extend")
        super().extend(digest)


@asynccontextmanager
async def life(machine: FakeMachine) -> AsyncIterator[Agent]:
    medium = Medium(
        source=builders.source("/dev/sdb"), superblock=builders.squashfs(), verdict=IMAGE
    )
    machine.plug(medium)
    async with running(machine, builders.world(measures=True)) as agent:
        yield agent


async def test_it_is_measured_between_mount_and_first_start() -> None:
    machine = FakeMachine()
    machine.register = Witness(machine)
    async with life(machine) as agent:
        status = await agent.until_state("ready")
        assert status.image
        assert status.image.measured
    order = [c.split()[0] for c in machine.calls if c.split()[0] in ("mount", "extend", "start")]
    assert order == ["mount", "extend", "start", "start"]
    assert machine.register.value == VALUE


async def test_the_next_agent_of_the_same_boot_measures_nothing() -> None:
    machine = FakeMachine()
    machine.register = FakeRegister()
    for _ in range(3):
        async with life(machine) as agent:
            status = await agent.until_state("ready")
            assert status.image
            assert status.image.measured
    assert machine.register.value == VALUE


async def test_a_tpm_that_fails_stops_no_service_and_the_status_says_so() -> None:
    machine = FakeMachine()
    machine.register = FakeRegister()
    machine.register.fails = True
    async with life(machine) as agent:
        status = await agent.until_state("ready")
        assert status.image
        assert not status.image.measured
        assert [problem.code for problem in status.problems] == [Code.STATE]
    assert machine.register.value == event_log.START
