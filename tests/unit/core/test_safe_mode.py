"""An agent that crashed again and again does only what is known to work."""

from dataclasses import replace

import pytest

from extsloader.core import engine, fleet, history, safe_mode, view
from extsloader.model import events as ev
from extsloader.model.history import Ending, History
from extsloader.model.source import SourceKind
from extsloader.model.world import CandidatePhase, ServicePhase, World
from tests.fakes import builders, worlds


def start(starts: int, ended: Ending = Ending.RUNNING) -> World:
    return history.begin(builders.world(), History(starts=starts, ended=ended), (), 0.0)


@pytest.mark.parametrize(
    ("before", "ended", "safe"),
    [
        (4, Ending.RUNNING, False),
        (5, Ending.RUNNING, True),
        (50, Ending.RUNNING, True),
        (50, Ending.STOPPED, False),
        (50, Ending.HANDED_OVER, False),
    ],
)
def test_it_begins_after_five_crashes_and_ends_after_a_polite_stop(
    before: int, ended: Ending, safe: bool
) -> None:
    world = start(before, ended)
    assert world.safe == safe
    assert world.history.starts == (before + 1 if ended is Ending.RUNNING else 1)
    assert (safe_mode.explain(world) is not None) == safe


def test_only_what_essential_services_need_runs() -> None:
    world = worlds.running(
        builders.service("core", essential=True, requires=["base"]),
        builders.service("base", requires=["ground"]),
        builders.service("ground"),
        builders.service("extra", requires=["core"]),
    )
    safe = replace(world, safe=True)
    assert safe_mode.find_optional(safe) == {"extra"}
    wishes = fleet.find_wishes(safe)
    assert {name for name, wanted in wishes.items() if wanted} == {"core", "base", "ground"}
    phases = dict.fromkeys(("core", "base", "ground"), ServicePhase.READY)
    for name, phase in phases.items():
        safe = worlds.change(safe, name, phase=phase)
    safe = worlds.change(safe, "extra", phase=ServicePhase.IDLE)
    snapshot = view.take_snapshot(safe, builders.moment())
    assert (snapshot.state, snapshot.reason) == (
        "degraded",
        "safe mode: all 3 services are ready, 1 must not run",
    )
    extra = next(service for service in snapshot.services if service.name == "extra")
    assert (extra.state, extra.reason) == ("excluded", "safe mode: it is not essential")
    assert "systemctl restart extsloaderd" in snapshot.problems[0].hint


def test_new_media_are_not_even_read() -> None:
    stick = builders.source()
    step = engine.step(
        replace(builders.world(), safe=True), ev.SourceSeen(stick), builders.moment()
    )
    assert step.world.candidates[stick.id].phase is CandidatePhase.IGNORED
    kept = builders.source("/persist/extsloader/store/x.img", kind=SourceKind.STORED)
    step = engine.step(step.world, ev.SourceSeen(kept), builders.moment())
    assert step.world.candidates[kept.id].phase is CandidatePhase.PROBING


def test_the_last_image_that_ran_well_goes_before_a_newer_one() -> None:
    old, new = builders.stored(builders.service("a")), builders.stored(sequence=2)
    known = History(good=old.digest)
    for safe, chosen in ((True, old), (False, new)):
        waiting = builders.world(safe=safe, history=known, awaited=frozenset({"files"}))
        for number, image in enumerate((new, old)):
            kept = builders.source(
                f"/persist/extsloader/store/{number}.img", kind=SourceKind.STORED
            )
            events = (
                ev.SourceSeen(kept),
                ev.Probed(kept.id, builders.squashfs()),
                ev.Verified(kept.id, image),
            )
            waiting = worlds.tell(waiting, *events).world
        assert worlds.tell(waiting, ev.SourcesListed("files", ())).world.active == chosen.digest
