"""One life of the agent on an unruly machine: what is told, ordered and answered, step by step."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from extsloader.core import engine
from extsloader.model import effects as fx
from extsloader.model import events as ev
from extsloader.model.effects import Effect
from extsloader.model.events import Cause, CauseKind, Event, TimerId, TimerKind
from extsloader.model.ids import ServiceName
from extsloader.model.machine import Load, Machine, Moment
from extsloader.model.manifest import ProbeKind, StoredImage
from extsloader.model.reasons import Code, Problem
from extsloader.model.settings import Settings
from extsloader.model.source import Source
from extsloader.model.world import ServicePhase, World
from tests.fakes import builders, worlds
from tests.fakes.unruly_machine import Container, UnrulyMachine

Thing = TypeVar("Thing")

FOR_EVER = (TimerKind.IMAGE, TimerKind.CLOCK, TimerKind.HEALTH, TimerKind.RECONCILE)


class Fate(Protocol):
    """Decides how an order ends."""

    def goes_well(self) -> bool:
        """Whether it goes as hoped."""

    def problem(self) -> Problem | None:
        """What goes wrong, if anything."""

    def pick(self, things: Sequence[Thing]) -> Thing:
        """One of several."""


class Lucky:
    """Everything goes well from now on."""

    def goes_well(self) -> bool:
        return True

    def problem(self) -> Problem | None:
        return None

    def pick(self, things: Sequence[Thing]) -> Thing:
        return things[0]


class UnrulyLife:
    """The core's world and the machine, kept together; `sane` is false while a step breaks."""

    def __init__(self, settings: Settings) -> None:
        self.world = World(
            settings=settings, machine=Machine(arch="amd64", no_verity=""), measures=True
        )
        self.first = self.world
        self.machine = UnrulyMachine()
        self.images: list[StoredImage] = []
        self.now = 0.0
        self.told: list[tuple[Event, Moment, tuple[Effect, ...]]] = []
        self.sane = True

    def tell(self, event: Event) -> None:
        if self.world.finished:
            return  # so does the loop
        moment = builders.moment(self.now, dice=len(self.told) * 0.37 % 1)
        self.sane = False
        step = engine.step(self.world, event, moment)
        self.world = step.world
        self.told.append((event, moment, step.effects))
        for effect in step.effects:
            self.machine.obey(effect, self.world, self.now)
        self.sane = True

    def plug(self, source: Source) -> None:
        self.machine.plug(source)
        self.tell(ev.SourceSeen(source))

    def pull(self, path: str) -> None:
        self.machine.media.pop(path, None)
        self.tell(ev.SourceGone(path))

    def answer(self, effect: Effect, fate: Fate) -> None:
        match effect:
            case fx.ListSources(provider):
                found = tuple(medium.source for medium in self.machine.media.values())
                self.tell(ev.SourcesListed(provider, found))
            case fx.Probe() | fx.Verify():
                self.answer_helper(effect, fate)
            case fx.MountImage() | fx.UnmountImage():
                self.answer_image(effect, fate)
            case fx.CheckImage(digest):
                self.tell(ev.ImageChecked(digest, self.machine.find_damage(digest, fate.problem())))
            case fx.MeasureImage(digest):
                self.machine.measured.add(digest)
                self.tell(ev.ImageMeasured(digest, fate.problem()))
            case fx.SaveHistory():
                self.tell(ev.HistorySaved(fate.problem()))
            case fx.LoadSettings():
                self.tell(ev.SettingsLoaded(self.world.settings))
            case fx.CheckReady(name, run):
                self.tell(ev.ServiceChecked(name, run, ready=fate.goes_well()))
            case fx.ReadLoad():
                self.tell(ev.LoadRead(self.load(fate)))
            case _:
                self.answer_service(effect, fate)

    def answer_helper(self, effect: fx.Probe | fx.Verify, fate: Fate) -> None:
        id_ = effect.source.id
        called_off = id_ in self.machine.called_off
        self.machine.called_off.discard(id_)
        problem = fate.problem()
        if problem:
            gone = Problem(Code.GONE, "called off")
            self.tell(ev.Refused(id_, gone if called_off else problem))
        elif isinstance(effect, fx.Probe):
            self.tell(ev.Probed(id_, builders.squashfs()))
        else:
            self.tell(ev.VerifyProgressed(id_, 1, 2))
            image = fate.pick(self.images)
            self.machine.verified.add(image.digest)
            self.machine.vouched[id_] = self.machine.looked_at[id_]
            self.tell(ev.Verified(id_, image))

    def answer_image(self, effect: fx.MountImage | fx.UnmountImage, fate: Fate) -> None:
        problem = fate.problem()
        if isinstance(effect, fx.UnmountImage):
            self.machine.mounted.discard(effect.digest)
            self.tell(ev.ImageUnmounted(effect.digest, problem))
        elif problem:
            self.tell(ev.ImageFailed(effect.image.digest, problem))
        else:
            image = effect.image
            self.machine.mounted.add(image.digest)
            names = [service.name for service in image.manifest.services]
            bad = () if fate.goes_well() else (fate.pick(names),)
            self.tell(worlds.mounted(image, *bad))

    def answer_service(self, effect: Effect, fate: Fate) -> None:
        problem = fate.problem()
        match effect:
            case fx.RemoveService(plan, run, unmount):
                self.machine.remove(plan.service, unmount=unmount)
                self.tell(ev.ServiceRemoved(plan.service, run, problem))
            case fx.CreateService(plan, run) if problem:
                self.tell(ev.ServiceFailed(plan.service, run, problem))
            case fx.CreateService(plan, run) if run == 1 and not fate.goes_well():
                self.tell(ev.ServiceExited(plan.service, run, Cause(CauseKind.CODE, 7)))
            case fx.CreateService(plan, run):
                self.machine.containers[plan.service] = Container(run)
                adopted = run == 1 and not fate.goes_well()
                ready = adopted and fate.goes_well()
                load = self.load(fate)
                self.tell(
                    ev.ServiceCreated(plan.service, run, 7, running=adopted, ready=ready, load=load)
                )
            case fx.StartService(name, run) if problem:
                self.tell(ev.ServiceFailed(name, run, problem))
            case fx.StartService(name, run):
                self.tell(ev.ServiceStarted(name, run))
            case _:
                raise AssertionError(effect)

    def load(self, fate: Fate) -> Load:
        """Sometimes there is no memory left."""
        return Load(free_memory=1 << 30 if fate.goes_well() else 1 << 10)

    def fire(self, timer: TimerId) -> None:
        self.now = max(self.now, self.machine.timers.pop(timer))
        self.tell(ev.TimerFired(timer))

    def end(self, name: ServiceName, cause: Cause) -> None:
        container = self.machine.containers[name]
        container.ended = True
        self.tell(ev.ServiceExited(name, container.run, cause))

    def notify(self, name: ServiceName) -> None:
        self.tell(ev.ServiceNotified(name, self.machine.containers[name].run))

    def listening(self) -> list[ServiceName]:
        notify = ProbeKind.NOTIFY
        services = self.world.services
        return [n for n in self.living() if services[n].spec.readiness.kind is notify]

    def living(self) -> list[ServiceName]:
        return [name for name, c in self.machine.containers.items() if not c.ended]

    def go_on(self) -> bool:
        """Whatever happens next where all goes well; False when nothing does.

        The looks from time to time are no events: they go on for ever.
        """
        if self.machine.finished:
            return False
        started = ServicePhase.STARTED
        unready = [n for n in self.listening() if self.world.services[n].phase is started]
        if self.machine.in_flight:
            key = list(self.machine.in_flight)[len(self.told) % len(self.machine.in_flight)]
            self.answer(self.machine.in_flight.pop(key), Lucky())
        elif unready:
            self.notify(unready[0])
        elif timers := [t for t in self.machine.timers if t.kind not in FOR_EVER]:
            self.fire(min(timers, key=lambda timer: self.machine.timers[timer]))
        else:
            return False
        return True

    def live_again(self) -> None:
        """The same events in the same order give the same worlds and orders."""
        world = self.first
        for event, moment, effects in self.told:
            step = engine.step(world, event, moment)
            assert step.effects == effects
            world = step.world
        assert world == self.world
