"""What is remembered is kept in several places, and whatever is left of them counts."""

import msgspec
import pytest

from extsloader.model.errors import MachineError
from extsloader.model.trust import Memory, Release
from extsloader.runtime.memory_work import MemoryWork, decode_clock, decode_memory, recall
from extsloader.runtime.threads import Threads
from tests.fakes.machine import FakeMachine
from tests.fakes.state import FakeState

LOW = Memory(floors=(Release(name="pkgs", sequence=1, digest="a" * 64),))
HIGH = Memory(floors=(Release(name="pkgs", sequence=2, digest="b" * 64),))


def machine(*memories: Memory | None, clock: float | None = None) -> FakeMachine:
    found = FakeMachine()
    for copy, memory in zip(found.memory, memories, strict=True):
        copy.content = None if memory is None else msgspec.json.encode(memory)
    found.clock.content = None if clock is None else msgspec.json.encode(clock)
    return found


def test_a_new_device_remembers_nothing_and_has_lost_nothing() -> None:
    found = recall(machine(None, None).ports())
    assert (found.memory, found.clock, found.stale, found.problems) == (Memory(), 0.0, False, ())


def test_the_highest_copy_counts_and_the_other_is_mended() -> None:
    for memories in ((LOW, HIGH), (HIGH, LOW), (None, HIGH)):
        found = recall(machine(*memories, clock=5.5).ports())
        assert (found.memory, found.stale, found.clock) == (HIGH, True, 5.5)
    assert not recall(machine(HIGH, HIGH).ports()).stale


def test_one_copy_that_is_damaged_is_told_and_loses_nothing() -> None:
    found = machine(LOW, HIGH)
    found.memory[0].damaged = True
    recalled = recall(found.ports())
    assert (recalled.memory, recalled.stale, len(recalled.problems)) == (HIGH, True, 1)


def test_with_all_copies_damaged_the_loss_is_remembered() -> None:
    found = machine(LOW, HIGH)
    for copy in found.memory:
        copy.damaged = True
    recalled = recall(found.ports())
    assert (recalled.memory, recalled.stale) == (Memory(lost=True), True)
    again = recall(machine(Memory(lost=True), None).ports())
    assert again.memory.lost


def test_the_tpm_is_a_copy_that_may_know_more_than_the_files() -> None:
    found = machine(LOW, LOW)
    found.seal = FakeState(decode_memory, msgspec.json.encode(HIGH))
    recalled = recall(found.ports())
    assert (recalled.memory, recalled.stale, recalled.sealed) == (HIGH, True, True)
    found.seal.damaged = True
    recalled = recall(found.ports())
    assert (recalled.memory, recalled.sealed, len(recalled.problems)) == (LOW, False, 1)


async def test_every_copy_is_written_whatever_happens_to_one() -> None:
    found = machine(None, None)
    found.memory[0].full = True
    found.seal = FakeState(decode_memory)
    threads = Threads()
    work = MemoryWork(found.ports(), threads)
    with pytest.raises(MachineError, match="no space left on device"):
        await work.save(HIGH)
    await work.save_clock(1.5)
    threads.close()
    assert [copy.writes for copy in (*found.memory, found.seal, found.clock)] == [0, 1, 1, 1]
    found.memory[0].damaged = True
    recalled = recall(found.ports())
    assert (recalled.memory, recalled.clock) == (HIGH, 1.5)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"1",
        b"{",
        b'{"floors": [{"name": "pkgs"}]}',
        b'{"floors": [{"name": "pkgs", "sequence": -1}]}',
        b'{"accepted": [{"name": "pkgs", "sequence": 1.5}]}',
        b'{"key_epoch": -1}',
        b'{"key_epoch": true}',
    ],
)
def test_impossible_memories_do_not_count(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"expected|Expected|truncated|malformed|missing"):
        decode_memory(content)


def test_possible_memories_and_times_count() -> None:
    assert decode_memory(b'{"floors": [{"name": "pkgs", "sequence": 0}]}').floors[0].sequence == 0
    assert decode_memory(b"{}") == Memory()
    assert decode_clock(b"0") == 0
    assert decode_clock(b"253402300799") == 253402300799


@pytest.mark.parametrize(
    "content", [b"", b"null", b"-1", b"-0.5", b"253402300800", b"1e18", b'"1"', b"NaN", b"Infinity"]
)
def test_impossible_times_do_not_count(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"expected|Expected|truncated|malformed|invalid"):
        decode_clock(content)
