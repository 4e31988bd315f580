"""Which sequences may come, and what is remembered of those that came."""

from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extsloader.core import floor
from extsloader.core.floor import MAX_SEQUENCE, MAX_STEP
from extsloader.image.strictjson import MAX_INTEGER
from extsloader.model.manifest import Manifest
from extsloader.model.reasons import Code, Problem
from extsloader.model.trust import Memory, Release
from tests.fakes import builders


def image(sequence: int, digest: str = "a", name: str = "pkgs") -> Manifest:
    return replace(builders.manifest(sequence=sequence, digest=digest * 64), name=name)


def release(sequence: int, digest: str = "a", name: str = "pkgs") -> Release:
    return Release(name=name, sequence=sequence, digest=digest * 64)


def refusal(found: Problem | None) -> Code | None:
    return found.code if found else None


@pytest.mark.parametrize(
    ("sequence", "digest", "code"),
    [
        (1, "a", Code.ROLLBACK),
        (41, "a", Code.ROLLBACK),
        (42, "a", None),
        (42, "b", Code.EQUIVOCATION),
        (43, "b", None),
        (42 + MAX_STEP, "b", None),
        (43 + MAX_STEP, "b", Code.ROLLBACK),
        (MAX_SEQUENCE, "b", Code.ROLLBACK),
    ],
)
def test_the_floor_itself_is_the_lowest_that_may_come_and_only_once(
    sequence: int, digest: str, code: Code | None
) -> None:
    assert refusal(floor.refuse(image(sequence, digest), (release(42),), ())) is code


def test_a_refusal_says_what_was_expected_and_what_came() -> None:
    old = floor.refuse(image(41), (release(42),), ())
    assert old
    assert old.message == (
        "cannot accept sequence 41 of pkgs: 42 or later expected, as 42 is this device's floor"
    )
    twin = floor.refuse(image(42, "b"), (), (release(42),))
    assert twin
    assert "a" * 64 in twin.message
    assert "b" * 64 in twin.message
    far = floor.refuse(image(2**30), (release(42),), ())
    assert far
    assert "at most 1048618 expected, a jump of 1048576" in far.message


def test_without_a_floor_any_sequence_may_come_first() -> None:
    assert floor.refuse(image(MAX_SEQUENCE), (), ()) is None


def test_one_name_says_nothing_about_another() -> None:
    assert floor.refuse(image(1, "b", "other"), (release(42),), (release(42),)) is None


def test_a_baked_floor_is_of_any_image() -> None:
    baked = (Release(name="pkgs", sequence=42),)
    held = floor.hold(Memory(), baked, 0)
    assert floor.refuse(image(42, "b"), held.floors, ()) is None
    assert refusal(floor.refuse(image(41, "b"), held.floors, ())) is Code.ROLLBACK


def test_the_higher_of_baked_and_reached_holds() -> None:
    baked = (Release(name="pkgs", sequence=42),)
    for reached, holds in ((41, 42), (42, 42), (43, 43)):
        held = floor.hold(Memory(floors=(release(reached),)), baked, 0)
        assert [found.sequence for found in held.floors] == [holds]


def test_an_accepted_image_keeps_twins_out_before_it_has_run() -> None:
    memory = floor.accept(Memory(), image(7, "a"))
    assert not memory.floors
    assert refusal(floor.refuse(image(7, "b"), (), memory.accepted)) is Code.EQUIVOCATION
    assert floor.refuse(image(7, "a"), (), memory.accepted) is None
    assert floor.accept(memory, image(6, "b")) == memory


def test_running_well_raises_the_floor_and_ends_the_mourning_for_a_lost_one() -> None:
    memory = floor.reach(Memory(lost=True), image(7))
    assert memory == Memory(floors=(release(7),))
    assert floor.is_reached(memory, image(7))
    assert floor.is_reached(memory, image(6))
    assert not floor.is_reached(memory, image(8))
    assert not floor.is_reached(replace(memory, lost=True), image(7))


def test_newer_keys_set_anew_what_the_core_image_names_and_nothing_else() -> None:
    spoiled = (release(2**50), release(5, name="other"))
    memory = Memory(floors=spoiled, accepted=spoiled, key_epoch=3)
    baked = (Release(name="pkgs", sequence=42),)
    assert floor.hold(memory, (), 4) == replace(
        memory, floors=(spoiled[1], spoiled[0]), key_epoch=4
    )
    healed = floor.hold(memory, baked, 4)
    assert floor.refuse(image(43, "b"), healed.floors, healed.accepted) is None
    assert [(found.name, found.sequence) for found in healed.floors] == [("other", 5), ("pkgs", 42)]
    assert healed.key_epoch == 4


@pytest.mark.parametrize("epoch", [0, 2, 3])
def test_keys_that_are_not_newer_lower_no_floor(epoch: int) -> None:
    memory = Memory(floors=(release(100),), key_epoch=3)
    assert floor.hold(memory, (Release(name="pkgs", sequence=42),), epoch) == memory


@pytest.mark.parametrize(
    ("sequence", "implausible"),
    [(MAX_SEQUENCE - MAX_STEP, False), (MAX_SEQUENCE - MAX_STEP + 1, True), (2**63 - 1, True)],
)
def test_h065_a_floor_that_nothing_can_follow_is_implausible_and_holds(
    sequence: int, implausible: bool
) -> None:
    memory = Memory(floors=(release(sequence),))
    assert floor.is_implausible(memory) is implausible
    assert refusal(floor.refuse(image(42), memory.floors, ())) is Code.ROLLBACK


def test_of_several_copies_the_highest_counts_and_old_keys_do_not() -> None:
    copies = (
        Memory(floors=(release(7),), accepted=(release(9),), key_epoch=2),
        Memory(floors=(release(8), release(1, name="x")), key_epoch=2, lost=True),
        Memory(floors=(release(99),), accepted=(release(99),), key_epoch=1),
    )
    for order in permutations(copies):
        assert floor.join(order) == Memory(
            floors=(release(8), release(1, name="x")), accepted=(release(9),), key_epoch=2
        )
    assert floor.join(()) == Memory()
    assert floor.join([Memory(lost=True)]).lost


def test_of_two_copies_that_differ_in_the_digest_only_the_first_counts() -> None:
    found = floor.join([Memory(floors=(release(7, "a"),)), Memory(floors=(release(7, "b"),))])
    assert found.floors == (release(7, "a"),)


def test_the_highest_sequence_is_that_of_the_schema() -> None:
    assert MAX_SEQUENCE == MAX_INTEGER
    assert MAX_STEP == 2**20


RELEASES = st.builds(
    release, st.integers(0, 50), st.sampled_from("ab"), st.sampled_from(["p", "q"])
)
MEMORIES = st.builds(
    lambda found, epoch: Memory(floors=floor.join([Memory(floors=found)]).floors, key_epoch=epoch),
    st.lists(RELEASES, max_size=3).map(tuple),
    st.integers(0, 2),
)


@given(MEMORIES, st.integers(0, 50), st.sampled_from("ab"))
def test_nothing_but_newer_keys_ever_lowers_a_floor(
    memory: Memory, sequence: int, digest: str
) -> None:
    manifest = image(sequence, digest, "p")
    after = floor.reach(floor.accept(floor.hold(memory, (), 2), manifest), manifest)
    joined = floor.join([memory, after])
    for known in memory.floors:
        lowered = replace(manifest, name=known.name, sequence=known.sequence - 1)
        assert refusal(floor.refuse(lowered, joined.floors, ())) is Code.ROLLBACK
