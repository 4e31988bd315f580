"""What the core's orders have made of a machine, and what it still has to answer.

It checks each order when it is given. Who plays it decides when each order ends, and how.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field

from extsloader.core import candidates, fleet, graph
from extsloader.core.supervision import ENDED
from extsloader.model import effects as fx
from extsloader.model.effects import Effect
from extsloader.model.events import TimerId
from extsloader.model.ids import Digest, ServiceName, SourceId
from extsloader.model.reasons import Code, Problem
from extsloader.model.source import Source
from extsloader.model.world import ServicePhase, World

AboutImage = fx.MountImage | fx.UnmountImage | fx.CheckImage | fx.DropImage

DAMAGE = Problem(Code.VERITY, "cannot trust it")
AboutService = fx.CreateService | fx.StartService | fx.RemoveService | fx.CheckReady

SETTLED = {ServicePhase.READY, ServicePhase.FINISHED}


@dataclass(slots=True)
class Container:
    """One run of a service."""

    run: int
    ended: bool = False  # and that was reported


@dataclass(slots=True)
class Medium:
    """A source that is plugged in; `visit` counts everything that was ever plugged in."""

    source: Source
    visit: int


@dataclass(slots=True)
class UnrulyMachine:
    """Knows what is there; `in_flight` are the orders without an answer."""

    media: dict[str, Medium] = field(default_factory=dict)
    visits: int = 0
    looked_at: dict[SourceId, int] = field(default_factory=dict)  # visit that a helper began with
    called_off: set[SourceId] = field(default_factory=set)
    vouched: dict[SourceId, int] = field(default_factory=dict)  # visit that was verified
    verified: set[Digest] = field(default_factory=set)
    mounted: set[Digest] = field(default_factory=set)
    measured: set[Digest] = field(default_factory=set)  # or it failed
    damaged: set[Digest] = field(default_factory=set)  # of which a bad block was read
    layers: set[ServiceName] = field(default_factory=set)  # services with mounts of their own
    told: set[ServiceName] = field(default_factory=set)  # to go, and to stay away
    containers: dict[ServiceName, Container] = field(default_factory=dict)
    in_flight: dict[Hashable, Effect] = field(default_factory=dict)
    timers: dict[TimerId, float] = field(default_factory=dict)
    finished: bool = False

    def plug(self, source: Source) -> None:
        """The same medium seen again is no new visit."""
        there = self.media.get(source.id.path)
        if there is None or there.source.id != source.id:
            self.visits += 1
            self.media[source.id.path] = Medium(source, self.visits)

    def obey(self, effect: Effect, world: World, now: float) -> None:
        """Take an order; an order that must not be given now is an AssertionError."""
        assert not self.finished, "an order after the end"
        match effect:
            case fx.ListSources() | fx.Probe() | fx.Verify() | fx.CancelHelper():
                self._obey_about_source(effect)
            case fx.MountImage() | fx.UnmountImage() | fx.CheckImage() | fx.DropImage():
                self._obey_about_image(effect, world)
            case fx.CreateService() | fx.StartService() | fx.RemoveService() | fx.CheckReady():
                self._obey_about_service(effect, world)
            case fx.CallOffCreation(service):
                assert isinstance(self.in_flight["service", service], fx.CreateService)
            case fx.SignalService() | fx.KillService():
                self._check_signal(effect, world)
            case _:
                self._obey_at_once(effect, now)

    def _obey_about_source(self, effect: Effect) -> None:
        match effect:
            case fx.Probe(source) | fx.Verify(source):
                self._begin(("helper", source.id), effect)
                self.looked_at[source.id] = self.media[source.id.path].visit
            case fx.CancelHelper(source_id):
                self.called_off.add(source_id)
            case _:
                self._begin(("listing", object()), effect)

    def _obey_about_image(self, effect: AboutImage, world: World) -> None:
        match effect:
            case fx.MountImage(image):
                assert image.digest in self.verified, "nobody vouches for this image"
                assert image.digest not in self.mounted
                self._begin(("image", image.digest), effect)
            case fx.CheckImage(digest):
                assert digest in self.mounted
                self._begin(("image", digest), effect)
            case fx.UnmountImage(digest):
                told = world.images[digest].damage is not None
                wanted = told and not candidates.is_verifying(world)
                assert effect.drop == wanted, "what is damaged must not be used again"
                assert not self.layers, f"unmounted under the mounts of {self.layers}"
                assert not self.containers, f"unmounted under {self.containers}"
                assert ("measurement", digest) not in self.in_flight
                if effect.drop:  # what is verified anew may be asked about anew
                    self.measured.discard(digest)
                self._begin(("image", digest), effect)
            case fx.DropImage(digest):
                assert digest not in self.mounted
                assert digest != world.active

    def _obey_at_once(self, effect: Effect, now: float) -> None:
        match effect:
            case fx.SetTimer(timer, delay):
                assert delay >= 0
                self.timers[timer] = now + delay
            case fx.CancelTimer(timer):
                self.timers.pop(timer, None)
            case fx.SaveHistory():
                self._begin(("history",), effect)
            case fx.LoadSettings():  # lives also change their settings without it
                self._begin(("settings", object()), effect)
            case fx.Finish():
                self._finish()
            case fx.ReadLoad():
                self._begin("load", effect)
            case fx.MeasureImage(digest):
                assert digest in self.mounted
                assert digest not in self.measured, "a register is extended once"
                self._begin(("measurement", digest), effect)
            case _:
                kinds = fx.Record | fx.Reply | fx.KeepSocket | fx.SaveMemory | fx.SaveClock
                assert isinstance(effect, kinds)

    def find_damage(self, digest: Digest, problem: Problem | None) -> Problem | None:
        """What a check of the image says, if it does not fail."""
        return problem or (DAMAGE if digest in self.damaged else None)

    def remove(self, service: ServiceName, *, unmount: bool) -> None:
        """Its container goes, however badly that went, and so do its mounts when they shall."""
        self.containers.pop(service, None)
        if unmount:
            self.layers.discard(service)

    def _obey_about_service(self, effect: AboutService, world: World) -> None:
        match effect:
            case fx.CreateService(plan):
                assert plan.service not in self.containers
                assert world.active in self.mounted
                self.layers.add(plan.service)
                self._begin(("service", plan.service), effect)
            case fx.StartService(service, run):
                self._check_start(service, run, world)
                self._begin(("service", service), effect)
            case fx.RemoveService(plan):
                # One that was told to go waited for its users then; others may be told since.
                if effect.unmount and plan.service not in self.told:
                    self._check_stop(plan.service, world)
                self.told.discard(plan.service)
                self._begin(("service", plan.service), effect)
            case fx.CheckReady(service, run):
                self._begin(("check", service, run), effect)

    def _check_signal(self, effect: fx.SignalService | fx.KillService, world: World) -> None:
        """A service that failed is stopped whoever uses it; one that is to go waits for them."""
        assert self.containers[effect.service].run == effect.run
        to_go = world.services[effect.service].after_removal is ServicePhase.IDLE
        if to_go and isinstance(effect, fx.SignalService):
            self._check_stop(effect.service, world)
            self.told.add(effect.service)

    def _begin(self, key: Hashable, effect: Effect) -> None:
        assert key not in self.in_flight, f"{effect} overtakes {self.in_flight[key]}"
        self.in_flight[key] = effect

    def _check_start(self, service: ServiceName, run: int, world: World) -> None:
        assert self.containers[service].run == run
        assert world.active in self.measured, f"{service} started before its image was measured"
        state = world.services[service]
        for other in state.spec.requires:
            assert world.services[other].phase in SETTLED, f"{service} started before {other}"
        for other in state.rivals:
            rival = self.containers.get(other)
            phase = world.services[other].phase
            assert rival is None or phase is ServicePhase.CREATED, f"{service} beside {other}"
        for name, earlier in world.services.items():
            waits = earlier.spec.stage < state.spec.stage and earlier.phase not in ENDED
            assert not waits or not fleet.find_wishes(world)[name], f"{service} before {name}"

    def _check_stop(self, service: ServiceName, world: World) -> None:
        """Nobody who needs it and has to go as well is still there."""
        wishes = fleet.find_wishes(world)
        for name, state in world.services.items():
            if service in graph.needs(state.spec) and not wishes[name]:
                assert name not in self.containers, f"{service} stopped before {name}"

    def _finish(self) -> None:
        assert not self.mounted, "an image is left"
        assert not self.layers, "mounts are left"
        assert not self.containers, "containers are left"
        kinds = (fx.ListSources, fx.CheckReady, fx.ReadLoad, fx.SaveHistory, fx.LoadSettings)
        assert all(isinstance(effect, kinds) for effect in self.in_flight.values())
        self.finished = True
