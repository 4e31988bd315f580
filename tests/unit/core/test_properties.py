"""Whatever happens, in whatever order: what must hold after every single step."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from extsloader.core import candidates, engine, explain, fleet, view
from extsloader.core.candidates import IN_HELPER
from extsloader.core.lifecycle import AT_REST
from extsloader.core.step import Step
from extsloader.core.supervision import UP
from extsloader.model import effects as fx
from extsloader.model import events as ev
from extsloader.model.control import Verb
from extsloader.model.events import Cause, CauseKind, Event, TimerId, TimerKind
from extsloader.model.ids import ServiceName
from extsloader.model.manifest import Service
from extsloader.model.reasons import Code, Problem
from extsloader.model.settings import Limits, Rollout, Settings, Timeouts
from extsloader.model.world import CandidatePhase, ImagePhase, ServicePhase
from tests.fakes import builders, drawn, worlds
from tests.fakes.unruly_life import UnrulyLife

Thing = TypeVar("Thing")

PATHS = st.sampled_from(("/dev/sda", "/dev/sdb"))
DATA = st.data()
CAUSES = st.sampled_from(
    (
        Cause(CauseKind.CODE, 0),
        Cause(CauseKind.CODE, 1),
        Cause(CauseKind.OOM),
        Cause(CauseKind.LOST),
    )
)
PROBLEMS = st.sampled_from((Problem(Code.IO, "cannot read it"), Problem(Code.DIGEST, "it is bad")))
SETTINGS = Settings(
    limits=Limits(parallel_creates=1, store_images=2, restarts=2), timeouts=Timeouts(retry_limit=3)
)
RELOADED = st.sampled_from(
    (
        SETTINGS,
        SETTINGS,
        replace(SETTINGS, enabled=False),
        replace(SETTINGS, rollout=Rollout(deny=("a", "b"))),
        replace(SETTINGS, rollout=Rollout(allow=("a",))),
    )
)
IRRELEVANT = ev.TimerFired(TimerId(TimerKind.CHECK, ServiceName("nobody")))

AWAITED_SERVICE = {
    ServicePhase.CREATING: fx.CreateService,
    ServicePhase.STARTING: fx.StartService,
    ServicePhase.REMOVING: fx.RemoveService,
}
AWAITED_IMAGE = {ImagePhase.MOUNTING: fx.MountImage, ImagePhase.UNMOUNTING: fx.UnmountImage}
TIMED = {
    ServicePhase.BACKING_OFF: {TimerKind.BACK_OFF},
    ServicePhase.STARTED: {TimerKind.DELAY, TimerKind.READINESS, TimerKind.CHECK},
    ServicePhase.READY: {TimerKind.HEALTH},
    ServicePhase.STOPPING: {TimerKind.GRACE},
    ServicePhase.KILLING: {TimerKind.GRACE},
}


@dataclass(frozen=True, slots=True)
class Drawn:
    """Anything can happen."""

    data: st.DataObject

    def goes_well(self) -> bool:
        return self.data.draw(st.booleans())

    def problem(self) -> Problem | None:
        return self.data.draw(PROBLEMS) if self.data.draw(st.integers(0, 3)) == 3 else None

    def pick(self, things: Sequence[Thing]) -> Thing:
        return self.data.draw(st.sampled_from(things))


class Life(RuleBasedStateMachine):
    """One life of the agent on an unruly machine."""

    def __init__(self) -> None:
        super().__init__()
        self.life = UnrulyLife(SETTINGS)
        self.patience = 0

    @initialize(
        manifests=st.lists(drawn.fleets(most=4), min_size=1, max_size=3),
        patience=st.integers(0, 80),
    )
    def begin(self, manifests: list[tuple[Service, ...]], patience: int) -> None:
        self.patience = patience
        self.life.images = [
            builders.stored(*services, sequence=number)
            for number, services in enumerate(manifests, start=1)
        ]
        self.life.tell(ev.AgentStarted(("udev",)))

    @rule(path=PATHS, generation=st.sampled_from(("1", "2", None)))
    def plug_or_pull(self, path: str, generation: str | None) -> None:
        if generation is None:
            self.life.pull(path)
        else:
            self.life.plug(builders.source(path, generation))

    @precondition(lambda self: self.life.machine.media)
    @rule(data=DATA)
    def take_out_and_put_back(self, data: st.DataObject) -> None:
        medium = Drawn(data).pick(list(self.life.machine.media.values()))
        self.life.pull(medium.source.id.path)
        self.life.plug(medium.source)

    @rule()
    def lose_events(self) -> None:
        self.life.tell(ev.EventsLost("udev"))

    @precondition(lambda self: self.life.machine.in_flight)
    @rule(steps=st.integers(1, 12))
    def have_luck(self, steps: int) -> None:
        for _ in range(steps):
            self.life.go_on()

    @precondition(lambda self: self.life.machine.in_flight)
    @rule(data=DATA)
    def end_an_order(self, data: st.DataObject) -> None:
        fate, flying = Drawn(data), self.life.machine.in_flight
        self.life.answer(flying.pop(fate.pick(list(flying))), fate)

    @precondition(lambda self: self.life.machine.timers)
    @rule(data=DATA)
    def let_time_pass(self, data: st.DataObject) -> None:
        self.life.fire(Drawn(data).pick(list(self.life.machine.timers)))

    @precondition(lambda self: self.life.machine.mounted)
    @rule()
    def damage_the_disk(self) -> None:
        self.life.machine.damaged |= self.life.machine.mounted

    @precondition(lambda self: self.life.living())
    @rule(data=DATA, cause=CAUSES)
    def end_a_service(self, data: st.DataObject, cause: Cause) -> None:
        self.life.end(Drawn(data).pick(self.life.living()), cause)

    @precondition(lambda self: self.life.listening())
    @rule(data=DATA)
    def say_ready(self, data: st.DataObject) -> None:
        self.life.notify(Drawn(data).pick(self.life.listening()))

    @precondition(lambda self: any(s.run for s in self.life.world.services.values()))
    @rule(data=DATA, cause=CAUSES)
    def tell_about_an_old_run(self, data: st.DataObject, cause: Cause) -> None:
        state = Drawn(data).pick([s for s in self.life.world.services.values() if s.run])
        name, run = state.spec.name, state.run - 1
        world = self.life.world
        reports: list[Event] = [
            ev.ServiceCreated(name, run, pid=7),
            ev.ServiceStarted(name, run),
            ev.ServiceNotified(name, run),
            ev.ServiceChecked(name, run, ready=True),
            ev.ServiceExited(name, run, cause),
            ev.ServiceFailed(name, run, Problem(Code.RUNTIME, "cannot start it")),
            ev.ServiceRemoved(name, run),
        ]
        self.life.tell(Drawn(data).pick(reports))
        assert self.life.world is world
        assert not self.life.told[-1][2] or world.finished

    @precondition(lambda self: self.life.world.services)
    @rule(data=DATA, verb=st.sampled_from(Verb))
    def ask_for_something(self, data: st.DataObject, verb: Verb) -> None:
        service = Drawn(data).pick(list(self.life.world.services))
        self.life.tell(ev.Asked(verb, 0, service))

    @rule(settings=RELOADED)
    def change_the_configuration(self, settings: Settings) -> None:
        self.life.tell(ev.SettingsLoaded(settings))

    @precondition(lambda self: len(self.life.told) > self.patience)
    @rule()
    def ask_to_stop(self) -> None:
        self.life.tell(ev.StopAsked())

    # What must hold

    @invariant()
    def each_wait_has_something_to_wait_for(self) -> None:
        flying = self.life.machine.in_flight
        helped = {c.source.id for c in self.life.world.candidates.values() if c.phase in IN_HELPER}
        assert helped == {
            e.source.id for e in flying.values() if isinstance(e, fx.Probe | fx.Verify)
        }
        for digest, image in self.life.world.images.items():
            idle = fx.CheckImage if image.checking else type(None)
            awaited = AWAITED_IMAGE.get(image.phase, idle)
            assert isinstance(flying.get(("image", digest)), awaited)
        for name, state in self.life.world.services.items():
            order = AWAITED_SERVICE.get(state.phase, type(None))
            assert isinstance(flying.get(("service", name)), order)

    @precondition(lambda self: not self.life.world.finished)
    @invariant()
    def each_pause_has_its_timer_and_no_timer_outlives_its_pause(self) -> None:
        timers = set(self.life.machine.timers)
        for name, state in self.life.world.services.items():
            kinds = {timer.kind for timer in timers if timer.subject == name}
            assert kinds <= TIMED.get(state.phase, set())
            asked = ("check", name, state.run) in self.life.machine.in_flight
            free = state.phase is ServicePhase.READY and (asked or not state.spec.health)
            assert kinds or state.phase not in TIMED or free
        retrying = {
            id_
            for id_, c in self.life.world.candidates.items()
            if c.phase is CandidatePhase.RETRYING and not self.life.world.stopping
        }
        assert retrying <= {timer.subject for timer in timers if timer.kind is TimerKind.RETRY}
        assert (TimerId(TimerKind.PROBATION) in timers) == self.life.world.on_probation
        assert (
            not self.life.world.choosing
            or TimerId(TimerKind.CHOOSE) in timers
            or self.life.world.overdue
        )

    @precondition(lambda self: not self.life.world.finished)
    @invariant()
    def what_is_put_off_is_not_forgotten(self) -> None:
        world, timers = self.life.world, self.life.machine.timers
        assert not world.admission.deferred or TimerId(TimerKind.ADMIT) in timers
        assert not world.budget_spent or TimerId(TimerKind.BUDGET) in timers
        assert world.admission.asking == ("load" in self.life.machine.in_flight)

    @precondition(lambda self: not self.life.world.stopping)
    @invariant()
    def a_mounted_image_is_watched_until_its_damage_is_known(self) -> None:
        waits = TimerId(TimerKind.IMAGE) in self.life.machine.timers
        for digest, image in self.life.world.images.items():
            if image.phase is ImagePhase.MOUNTED:
                assert image.checking or waits or image.damage
            assert not image.damage or digest in self.life.machine.damaged

    @invariant()
    def nothing_of_an_idle_service_is_there(self) -> None:
        for name, state in self.life.world.services.items():
            if state.phase is ServicePhase.IDLE:
                assert name not in self.life.machine.layers
            if name in self.life.machine.containers:
                assert state.phase in UP | {ServicePhase.CREATED, ServicePhase.REMOVING}

    @precondition(lambda self: not self.life.world.finished)
    @invariant()
    def a_verdict_is_about_the_medium_that_is_there(self) -> None:
        for id_, candidate in self.life.world.candidates.items():
            medium = self.life.machine.media.get(id_.path)
            there = medium is not None and medium.source.id == id_
            assert candidate.present == there
            if medium and there and candidate.phase is CandidatePhase.VERIFIED:
                assert self.life.machine.vouched[id_] == medium.visit

    @invariant()
    def no_image_below_its_floor_is_kept_but_the_active_one(self) -> None:
        world = self.life.world
        floors = {floor.name: floor.sequence for floor in world.bounds.memory.floors}
        settled = not (candidates.is_verifying(world) or world.choosing)
        for digest, image in world.images.items():
            low = image.stored.manifest.sequence < floors.get(image.stored.manifest.name, 0)
            at_rest = image.phase in AT_REST and settled
            assert not (low and at_rest) or digest == world.active

    @invariant()
    def nothing_that_is_due_is_left_undone(self) -> None:
        step = engine.step(self.life.world, IRRELEVANT, builders.moment(self.life.now))
        assert step == Step(self.life.world)

    @invariant()
    def every_world_can_be_shown_and_explained(self) -> None:
        snapshot = view.take_snapshot(self.life.world, builders.moment(self.life.now))
        assert snapshot.reason
        for name in self.life.world.services:
            explanation = explain.explain(snapshot, name, "/log/{}.log".format)
            assert explanation is not None
            assert explanation.next_step

    def teardown(self) -> None:
        """Let everything come to rest, stop, and live the same life again."""
        if not self.life.sane or not self.life.told:
            return
        if not self.life.world.stopping and len(self.life.told) % 2:
            self.life.tell(ev.SettingsLoaded(SETTINGS))
            self.come_to_rest()
            self.check_rest()
        self.life.tell(ev.StopAsked())
        self.come_to_rest()
        assert self.life.world.finished
        assert self.life.machine.finished
        self.life.live_again()

    def come_to_rest(self) -> None:
        for _ in range(2000):
            if not self.life.go_on():
                return
            self.each_wait_has_something_to_wait_for()
            self.nothing_of_an_idle_service_is_there()
        raise AssertionError("it never comes to rest")

    def check_rest(self) -> None:
        """What can run, runs; what cannot, says why."""
        world = self.life.world
        wishes = fleet.find_wishes(world)
        phases = {c.phase for c in world.candidates.values() if c.present}
        assert phases <= {CandidatePhase.VERIFIED, CandidatePhase.REFUSED}
        for image in world.images.values():
            assert image.phase is not ImagePhase.STORED or world.active is not None
        for name, state in world.services.items():
            good = {ServicePhase.READY, ServicePhase.FINISHED, ServicePhase.PARKED}
            assert state.phase in good or not wishes[name]


def test_a_life_on_an_unruly_machine_keeps_every_promise() -> None:
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=250,
            stateful_step_count=60,
            deadline=None,
            phases=set(Phase) - {Phase.explain},  # which traces every line
        ),
    )


def test_a_thousand_shuffles_of_a_manifest_have_one_start_plan() -> None:
    services = [
        builders.service("web", requires=["broker"], after=["log"]),
        builders.service("broker", wants=["clock"]),
        builders.service("log"),
        builders.service("clock"),
        builders.service("alarm", after=["web", "log"]),
    ]
    dice = random.Random(1)  # noqa: S311 - a test's own dice
    world, plans = worlds.verified(builders.stored(*services)), []
    for _ in range(1000):
        dice.shuffle(services)
        image = builders.stored(*services)
        planned = fleet.plan(world, image, worlds.mounted(image), builders.moment())
        step = planned.then(fleet.settle, builders.moment())
        plans.append((list(step.world.services.items()), step.effects))
    assert all(plan == plans[0] for plan in plans)
