"""An image is measured once in a boot, whenever the agent is killed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extsloader.core import event_log
from extsloader.model.errors import MachineError
from extsloader.model.ids import Digest
from extsloader.runtime.measure_work import MeasureWork, measure
from extsloader.runtime.threads import Threads
from tests.fakes.machine import FakeMachine
from tests.fakes.register import FakeRegister, KilledError

A, B = Digest("a" * 64), Digest("b" * 64)
HALVES = 10  # of calls that one measurement makes, at most


def live(register: FakeRegister, image: Digest, lives: int = 1 << 30) -> None:
    """One life of an agent, perhaps a short one."""
    register.lives = lives
    try:
        measure(register, image)
    except KilledError:
        pass
    finally:
        register.lives = 1 << 30


@given(
    deaths=st.lists(st.tuples(st.sampled_from([A, B]), st.integers(0, HALVES)), max_size=6),
    last=st.sampled_from([A, B]),
)
def test_whenever_it_is_killed_each_image_is_measured_once_and_the_log_replays(
    deaths: list[tuple[Digest, int]], last: Digest
) -> None:
    register = FakeRegister()
    for image, lives in deaths:
        live(register, image, lives)
    live(register, last)
    assert len(register.extended) == len(set(register.extended))
    assert event_log.replay(register.log()) == register.value
    assert all(event.sure for event in register.log())
    assert event_log.find(register.log(), last)


def test_a_second_time_does_not_touch_the_tpm() -> None:
    register = FakeRegister()
    live(register, A)
    register.fails = True
    measure(register, A)
    assert register.extended == [event_log.digest_of(A)]


def test_a_new_boot_measures_anew() -> None:
    register = FakeRegister()
    live(register, A)
    register.value, register.boot = event_log.START, "next"
    live(register, A)
    assert register.value == event_log.extend(event_log.START, A)
    assert len(register.log()) == 1


def test_a_register_that_others_had_extended_before_is_no_hindrance() -> None:
    register = FakeRegister()
    register.value = start = b"k" * 32
    live(register, A)
    assert event_log.replay(register.log(), start) == register.value
    assert register.log()[0].before == start


def test_who_was_killed_while_others_extended_does_not_measure_twice() -> None:
    for lives in range(HALVES):
        register = FakeRegister()
        live(register, A, lives)
        begun = len(register.log())
        register.value = b"k" * 32
        if begun and not register.log()[0].sure:
            with pytest.raises(MachineError, match="once more may be too often"):
                measure(register, A)
        else:
            measure(register, A)
        assert register.extended.count(event_log.digest_of(A)) <= 1


def test_a_tpm_that_takes_it_and_does_not_change_is_told() -> None:
    register = FakeRegister()
    register.broken = True
    with pytest.raises(MachineError, match=r"into PCR 12: .* the same value as before"):
        measure(register, A)
    assert register.log() == ()


def test_a_damaged_log_stops_the_measurement_as_nobody_knows_what_was_done() -> None:
    register = FakeRegister()
    register.raw = b"[7]"
    with pytest.raises(MachineError, match="its event log cannot be used"):
        measure(register, A)
    assert register.extended == []


async def test_without_a_tpm_it_is_refused() -> None:
    threads = Threads()
    work = MeasureWork(FakeMachine().ports(), threads)
    with pytest.raises(MachineError, match="there is no TPM"):
        await work.measure(A)
    threads.close()
