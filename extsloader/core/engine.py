"""The one decision function: a world, an event and a moment give the next world and orders."""

from dataclasses import replace

from extsloader.core import (
    admission,
    budget,
    candidates,
    changes,
    fleet,
    history,
    images,
    measurement,
    memory,
    operators,
    reconcile,
    reload,
    rollout,
    services,
)
from extsloader.core.lifecycle import AT_REST
from extsloader.core.step import Step, note
from extsloader.model import events as ev
from extsloader.model.effects import CancelTimer, Finish, ListSources, Record
from extsloader.model.events import Event, TimerId, TimerKind
from extsloader.model.ids import Digest, SourceId
from extsloader.model.machine import Moment
from extsloader.model.world import CandidatePhase, ServicePhase, World


def step(world: World, event: Event, moment: Moment) -> Step:
    """Apply the event, then give every order that is due now.

    Raises IllegalTransitionError for a report that cannot be true; the caller's world stands.
    """
    outcome = _apply(world, event, moment).then(_settle, moment)
    found = changes.find_changes(world, outcome.world, moment)
    told = tuple(effect.change for effect in outcome.effects if isinstance(effect, Record))
    kept = history.settle(world, history.remember(outcome.world, (*told, *found)), moment)
    return Step(kept.world, (*map(Record, found), *outcome.effects, *kept.effects))


def _apply(world: World, event: Event, moment: Moment) -> Step:
    match event:
        case ev.AgentStarted(providers):
            return _begin(world, providers, moment)
        case ev.SourceSeen(source):
            return candidates.see(world, source, moment)
        case ev.SourceGone(path):
            return candidates.lose(world, path)
        case ev.SourcesListed(provider, sources):
            return candidates.take_listing(world, provider, sources, moment)
        case ev.EventsLost(provider):
            return Step(world, (ListSources(provider),))
        case ev.Probed(source_id, superblock):
            return candidates.take_superblock(world, source_id, superblock, moment)
        case ev.VerifyProgressed(source_id, done, total):
            return candidates.take_progress(world, source_id, done, total)
        case ev.Verified():
            return _take_verified(world, event, moment)
        case ev.Refused(source_id, problem):
            return candidates.refuse(world, source_id, problem, moment)
        case ev.ImageMounted():
            return _take_mounted(world, event, moment)
        case ev.ImageFailed(digest, problem):
            return images.take_failed(world, digest, problem, moment)
        case ev.ImageUnmounted(digest, left):
            return images.take_unmounted(world, digest, left)
        case ev.ImageChecked(digest, problem):
            return images.take_checked(world, digest, problem)
        case ev.ImageMeasured(digest, problem):
            return measurement.take(world, digest, problem)
        case ev.ServiceExited() | ev.ServiceFailed():
            taken = services.take(world, event, moment)
            return taken if taken.world is world else taken.then(images.check)
        case ev.ServiceCreated(load=load) if load:
            return services.take(world, event, moment).then(admission.take_load, load, moment)
        case ev.LoadRead(load):
            return admission.take_answer(world, load, moment)
        case ev.TimerFired(timer):
            return _fire(world, timer, moment)
        case ev.StopAsked():
            return _hurry(world, moment) if world.stopping else _begin_stop(world)
        case ev.HandOverAsked():
            return Step(world) if world.stopping else _hand_over(world)
        case ev.Asked():
            return operators.ask(world, event, moment)
        case ev.PillarHeard(held):
            return Step(replace(world, held_by_pillar=held))
        case ev.SettingsLoaded(settings, revoked):
            return reload.take(world, settings, revoked)
        case ev.SettingsRefused(problems):
            return reload.refuse(world, problems)
        case ev.ListingFailed(provider, problem):
            return Step(note(candidates.stop_awaiting(world, provider), problem))
        case ev.HistorySaved(problem):
            return history.take_saved(world, problem, moment)
        case ev.EffectFailed(problem):
            return Step(note(world, problem))
        case _:
            return services.take(world, event, moment)


def _settle(world: World, moment: Moment) -> Step:
    """Level-triggered: orders follow from how things are, not from how they came to be so."""
    if world.handing_over:
        return Step(world)
    return (
        candidates.start_helpers(world)
        .then(fleet.give_up)
        .then(images.choose)
        .then(measurement.settle)
        .then(fleet.settle, moment)
        .then(images.move)
        .then(images.drop_surplus)
        .then(candidates.drop_rotten)
        .then(_watch)
        .then(_finish)
    )


def _watch(world: World) -> Step:
    return memory.settle(world, fleet.find_skipped(world))


def _begin(world: World, providers: tuple[str, ...], moment: Moment) -> Step:
    begun = replace(world, providers=providers)
    step = reload.list_sources(begun) if rollout.is_on(world.settings) else Step(begun)
    looking = Step(step.world, (*step.effects, reconcile.begin(moment)))
    return looking.then(memory.begin, moment)


def _take_verified(world: World, event: ev.Verified, moment: Moment) -> Step:
    source, image = event.source, event.image
    if refused := memory.check(world, source, image, moment):
        return refused
    accepted = candidates.accept(world, source, image, moment)
    return accepted.then(images.add, source, image).then(memory.take_verified, image)


def _take_mounted(world: World, event: ev.ImageMounted, moment: Moment) -> Step:
    mounted = images.take_mounted(world, event.digest, event.found)
    stored = mounted.world.images[event.digest].stored
    return (
        mounted.then(fleet.plan, stored, event, moment).then(history.recall).then(_take_away_held)
    )


def _take_away_held(world: World) -> Step:
    """What must not run may still run since an earlier agent: it goes before anything else."""
    held = rollout.find_held(world)
    states = {
        name: replace(state, phase=ServicePhase.DUE) if name in held and state.plan else state
        for name, state in world.services.items()
    }
    return Step(replace(world, services=states))


def _fire(world: World, timer: TimerId, moment: Moment) -> Step:
    match timer:
        case TimerId(TimerKind.CHOOSE):
            return images.end_waiting(world)
        case TimerId(TimerKind.SAVE):
            return history.fire(world, moment)
        case TimerId(TimerKind.RECONCILE):
            return reconcile.fire(world, moment)
        case TimerId(TimerKind.IMAGE):
            return images.check(world)
        case TimerId(TimerKind.MOUNT, str(digest)):
            return images.end_pause(world, Digest(digest))
        case TimerId(TimerKind.PROBATION):
            return memory.end_probation(world)
        case TimerId(TimerKind.CLOCK):
            return memory.take_hour(world, moment)
        case TimerId(TimerKind.BUDGET):
            return budget.fire(world)
        case TimerId(TimerKind.ADMIT):
            return admission.fire(world)
        case TimerId(TimerKind.RETRY, SourceId() as source):
            return candidates.retry(world, source)
        case _:
            return services.fire(world, timer, moment)


def _begin_stop(world: World) -> Step:
    stopping = replace(world, stopping=True)
    retrying = [c for c in world.candidates.values() if c.phase is CandidatePhase.RETRYING]
    timers = tuple(CancelTimer(TimerId(TimerKind.RETRY, c.source.id)) for c in retrying)
    return Step(
        stopping, (*timers, *candidates.cancel_helpers(world), *services.call_off_creations(world))
    )


def _hand_over(world: World) -> Step:
    """End as one who is killed does, for whom the next agent takes over; but not by surprise."""
    leaving = replace(world, handing_over=True, finished=True)
    return Step(leaving, (*candidates.cancel_helpers(world), Finish()))


def _hurry(world: World, moment: Moment) -> Step:
    """Asked a second time to stop: whoever has been asked politely is out of grace."""
    step = Step(world)
    for name, state in world.services.items():
        if state.phase is ServicePhase.STOPPING:
            step = step.then(services.fire, TimerId(TimerKind.GRACE, name), moment)
    return step


def _finish(world: World) -> Step:
    """Everything is undone: the loop may end, once."""
    if not world.stopping or world.finished or candidates.at_work(world):
        return Step(world)
    if any(image.phase not in AT_REST for image in world.images.values()):
        return Step(world)
    return Step(replace(world, finished=True), (Finish(),))
