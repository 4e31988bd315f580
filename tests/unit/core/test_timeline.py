"""What a start is seen to have waited for."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from extsloader.core.timeline import Noted, lay_out
from extsloader.model.ids import short
from extsloader.model.manifest import Service
from extsloader.model.status import Change
from extsloader.model.timeline import NOTED, Row, Timeline
from extsloader.model.world import ServicePhase, World
from tests.fakes import builders, worlds

BEGUN = builders.moment(100.0)


def note(at: float, subject: str, new: str, old: str = "") -> Noted:
    """`at` is in seconds since the agent's start."""
    return 100.0 + at, Change(wall=at, subject=subject, old=old, new=new)


def run(begin: float, name: str, *times: float) -> list[Noted]:
    """A service that is created, and then starts, runs and is ready."""
    subject, words = f"service {name}", ("created", "starting", "started", "ready")
    phases = zip(times, words, strict=False)
    return [note(begin, subject, "creating"), *(note(at, subject, word) for at, word in phases)]


def world(*services: Service) -> World:
    return worlds.running(*services, **{s.name: ServicePhase.READY for s in services})


def rows(timeline: Timeline) -> dict[str, Row]:
    return {row.subject: row for row in timeline.rows}


def test_phases_follow_one_another_and_the_last_one_lasts() -> None:
    found = lay_out(world(), BEGUN, run(1.0, "a", 1.5, 3.0, 3.25, 4.0), 105.0)
    row = rows(found)["service a"]
    assert [(p.name, p.pace, p.begin, p.end) for p in row.phases] == [
        ("creating", "busy", 1.0, 1.5),
        ("created", "waits", 1.5, 3.0),
        ("starting", "busy", 3.0, 3.25),
        ("started", "busy", 3.25, 4.0),
        ("ready", "rests", 4.0, None),
    ]
    assert (row.done, row.took) == (4.0, 1.5)  # the wait is not its own
    assert (found.after_boot, found.ready, found.until) == (100.0, None, 5.0)


def test_it_ends_when_the_agent_is_ready() -> None:
    noted = [
        note(2.0, "agent", "activating", "searching"),
        note(3.0, "operator uid 0", "accepted"),
        note(4.0, "agent", "ready", "activating"),
    ]
    found = lay_out(world(), BEGUN, noted, 900.0)
    assert (found.ready, found.until, found.cut) == (4.0, 4.0, False)
    assert [(row.subject, row.phases[0].name, row.phases[0].begin) for row in found.rows] == [
        ("agent", "searching", 0.0)
    ]


def test_a_failed_start_ends_with_what_happened_last_and_a_search_goes_on() -> None:
    failed = [note(2.0, "agent", "failed", "searching"), note(7.0, "service a", "parked")]
    assert lay_out(world(), BEGUN, failed, 900.0).until == 7.0
    assert lay_out(world(), BEGUN, [], 900.0).until == 800.0


def test_a_crash_storm_is_cut() -> None:
    found = lay_out(world(), BEGUN, [note(i, "service a", "due") for i in range(NOTED)], 9e9)
    assert (found.cut, found.until) == (True, NOTED - 1)


def test_the_critical_path_goes_from_the_medium_to_the_last_service() -> None:
    whole = world(
        builders.service("base"),
        builders.service("quick"),
        builders.service("user", requires=["base"], after=["quick"]),
        builders.service("late", stage=2),
    )
    active = whole.active
    assert active
    noted = [
        note(0.1, f"candidate {whole.images[active].source}", "verifying"),
        note(0.6, f"candidate {whole.images[active].source}", "verified"),
        note(0.6, f"image {short(active)}", "mounting"),
        note(0.8, f"image {short(active)}", "mounted"),
        *run(0.8, "quick", 0.9, 0.9, 0.9, 1.0),
        *run(0.8, "user", 0.9, 2.0, 2.0, 2.5),
        *run(0.8, "base", 0.9, 0.9, 0.9, 2.0),
        *run(0.8, "late", 0.9, 2.5, 2.5, 2.75),
    ]
    found = lay_out(whole, BEGUN, noted, 103.0)
    assert found.critical_path == (
        f"candidate {whole.images[active].source}",
        f"image {short(active)}",
        "service base",
        "service user",
        "service late",
    )


def test_what_was_ready_too_late_was_not_waited_for() -> None:
    whole = world(builders.service("slow"), builders.service("user", wants=["slow"]))
    noted = [*run(0.0, "user", 0.5, 1.0, 1.0, 5.0), *run(0.0, "slow", 0.1, 0.1, 0.1, 4.0)]
    assert lay_out(whole, BEGUN, noted, 109.0).critical_path == ("service user",)


def test_the_changes_of_one_step_have_one_time() -> None:
    """They share the time on the wall; noting each took a moment, in an order of no meaning."""
    whole = world(builders.service("a"), builders.service("b", requires=["a"]))
    noted = [*run(0.0, "b", 0.5, 1.0), *run(0.0, "a", 0.5, 0.5, 0.5, 1.0)]
    noted.sort(key=lambda pair: pair[1].wall)
    late = [(at + i / 1e4, change) for i, (at, change) in enumerate(noted)]
    late.append((103.0, replace(noted[-1][1], wall=3.0, subject="service b", new="ready")))
    assert lay_out(whole, BEGUN, late, 104.0).critical_path == ("service a", "service b")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["agent", "service a", "image x", "candidate /dev/sdb", "else"]),
            st.sampled_from(["creating", "created", "ready", "verified, gone", "odd"]),
        ),
        max_size=30,
    )
)
def test_no_order_of_changes_confuses_it(pairs: list[tuple[str, str]]) -> None:
    noted = [note(i, subject, new) for i, (subject, new) in enumerate(pairs)]
    for row in lay_out(world(builders.service("a")), BEGUN, noted, 200.0).rows:
        ends = [phase.end for phase in row.phases]
        assert ends[:-1] == [phase.begin for phase in row.phases[1:]]
        assert ends[-1] is None
        assert 0 <= row.took <= len(pairs)
