"""When the active image is measured, and who waits for it."""

from dataclasses import replace

import pytest

from extsloader.core import changes, fleet, images, measurement, view
from extsloader.core.step import Step
from extsloader.model import effects as fx
from extsloader.model.errors import IllegalTransitionError
from extsloader.model.measurement import Measuring
from extsloader.model.reasons import Code, Problem
from extsloader.model.status import AgentState
from extsloader.model.world import ServicePhase as P
from extsloader.model.world import World
from tests.fakes import builders, worlds

NOW = builders.moment()
PROBLEM = Problem(Code.STATE, "cannot run tpm2_pcrread: no answer within 5 s")


def mounted(phase: P = P.CREATED) -> World:
    return replace(worlds.running(builders.service("a"), a=phase), measures=True)


def asked(phase: P = P.CREATED) -> World:
    return measurement.settle(mounted(phase)).world


def starts(world: World) -> bool:
    return any(isinstance(effect, fx.StartService) for effect in fleet.settle(world, NOW).effects)


def answered(world: World, problem: Problem | None = None) -> World:
    assert world.active
    return measurement.take(world, world.active, problem).world


def test_a_mounted_image_is_measured_once() -> None:
    world = mounted()
    assert world.active
    step = measurement.settle(world)
    assert step.effects == (fx.MeasureImage(world.active),)
    assert measurement.settle(step.world) == Step(step.world)


@pytest.mark.parametrize("problem", [None, PROBLEM])
def test_a_service_starts_after_the_answer_and_not_before(problem: Problem | None) -> None:
    assert not starts(mounted())
    assert not starts(asked())
    world = answered(asked(), problem)
    assert starts(world)
    assert not measurement.settle(world).effects


def test_without_a_tpm_nothing_waits() -> None:
    world = replace(mounted(), measures=False)
    assert not measurement.settle(world).effects
    assert starts(world)


def test_nothing_is_measured_while_the_agent_stops() -> None:
    assert not measurement.settle(replace(mounted(), stopping=True)).effects


def test_an_answer_that_nobody_asked_for_cannot_be_true() -> None:
    for world in (answered(asked()), replace(asked(), images={})):
        with pytest.raises(IllegalTransitionError, match="nobody asked"):
            answered(world)


def test_an_image_stays_until_the_answer_is_there() -> None:
    leaving = replace(asked(P.IDLE), stopping=True)
    assert not images.move(leaving).effects
    (effect,) = images.move(answered(leaving)).effects
    assert isinstance(effect, fx.UnmountImage)


def test_what_runs_already_is_not_ready_while_the_register_may_change() -> None:
    """Pillar takes "ready" to mean that PCR 12 does not change any more."""
    state, reason = view.judge(asked(P.READY))
    assert (state, reason[:15]) == (AgentState.ACTIVATING, "measuring image")
    assert view.judge(answered(asked(P.READY)))[0] is AgentState.READY


def test_the_status_says_whether_it_was_measured_and_why_not() -> None:
    good = view.take_snapshot(answered(asked()), NOW)
    bad = view.take_snapshot(answered(asked(), PROBLEM), NOW)
    assert good.image
    assert bad.image
    assert (good.image.measured, good.problems) == (True, ())
    assert (bad.image.measured, bad.problems) == (False, (PROBLEM,))


def test_the_journal_has_a_line_for_it() -> None:
    world = asked()
    (line,) = (c for c in changes.find_changes(world, answered(world, PROBLEM), NOW) if c.code)
    assert (line.old, line.new, line.reason) == (
        Measuring.ASKED, Measuring.FAILED, PROBLEM.message
    )  # fmt: skip
