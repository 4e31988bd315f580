"""What is remembered across restarts: taken up at the start, kept up to date, written now and then.

Writing is coalesced: a quiet agent writes a second after something changed, a busy one every five
seconds, as flash memory wears out and nobody gains from more.
"""

from dataclasses import replace

from extsloader.core import safe_mode
from extsloader.core.step import Step
from extsloader.model.effects import CancelTimer, Effect, SaveHistory, SetTimer
from extsloader.model.events import TimerId, TimerKind
from extsloader.model.history import Ending, History, Hold, ServiceRecord
from extsloader.model.ids import ServiceName
from extsloader.model.machine import Moment, is_time
from extsloader.model.reasons import Problem
from extsloader.model.status import Change, PreviousRun
from extsloader.model.world import Saving, ServicePhase, ServiceState, World

KEPT = 8
"""Changes of one service."""

KEPT_OTHERS = 32
"""Changes of one kind of anything else: agent, images, candidates."""

SOON = 1.0  # seconds from a change to its being written
APART = 5.0  # seconds between two writes

SAVE = TimerId(TimerKind.SAVE)

LASTING = frozenset({ServicePhase.PARKED, ServicePhase.FINISHED})
"""Nothing of it is left to be adopted, and it stays so until the device boots."""

REASONS = {
    "stopped": "it was stopped",
    "handed-over": "it handed over to this one",
    "crashed": "it crashed or was killed",
    "power-lost": "the device lost power or was reset",
    "unknown": "what it wrote about itself cannot be read",
}


def begin(world: World, found: History | None, problems: tuple[Problem, ...], wall: float) -> World:
    """The world of an agent that starts, with what an earlier one left; None: nothing usable."""
    boot = world.machine.boot
    past = found or History()
    same_boot = past.boot == boot
    holds = {n: h for n, h in past.holds.items() if same_boot or h is Hold.PAUSED}
    starts = past.starts + 1 if past.ended is Ending.RUNNING else 1
    services = past.services if same_boot else {n: _cool(r) for n, r in past.services.items()}
    return replace(
        world,
        history=replace(
            past,
            boot=boot,
            started=wall,
            ended=Ending.RUNNING,
            starts=starts,
            holds=holds,
            services=services,
        ),
        safe=safe_mode.is_due(starts),
        previous=_describe(found, boot) if found or problems else None,
        problems=(*world.problems, *problems),
    )


def is_possible(history: History) -> bool:
    """Whether an agent can have written it: a good checksum does not say that."""
    counts = [n for r in history.services.values() for n in (r.restarts, r.failures)]
    counts.append(history.starts)
    longest = max((len(changes) for changes in history.changes.values()), default=0)
    times = (c.wall for changes in history.changes.values() for c in changes)
    return (
        min(counts) >= 0 and longest <= KEPT_OTHERS and all(map(is_time, (history.started, *times)))
    )


def recall(world: World) -> Step:
    """Give the services of the image that was just planned what is remembered of them."""
    known = world.history.services
    recalled = {
        name: _recall(state, known[name]) if name in known else state
        for name, state in world.services.items()
    }
    return Step(replace(world, services=recalled))


def remember(world: World, changes: tuple[Change, ...]) -> World:
    """Keep what has just changed."""
    if not changes:
        return world
    kept = dict(world.history.changes)
    for change in changes:
        subject = _subject(change)
        most = KEPT if subject.startswith("service ") else KEPT_OTHERS
        kept[subject] = (*kept.get(subject, ()), change)[-most:]
    return replace(world, history=replace(world.history, changes=kept))


def collect(world: World) -> History:
    """What is to be written now; services that the active image does not have are forgotten."""
    if not world.services:
        return world.history
    subjects = {f"service {name}" for name in world.services}
    kept = {
        subject: changes
        for subject, changes in world.history.changes.items()
        if subject in subjects or not subject.startswith("service ")
    }
    records = {name: _record(state) for name, state in world.services.items() if state.plan}
    return replace(world.history, services=records, changes=kept)


def settle(old: World, new: World, moment: Moment) -> Step:
    """See to it that what differs between two worlds is written in a while."""
    if new.history is old.history and new.services is old.services:
        return Step(new)
    if old.services and not new.services:  # its image is unmounted
        kept = replace(new.history, services=collect(old).services)
        new = replace(new, history=kept)
    return _schedule(replace(new, saving=replace(new.saving, due=True)), moment)


def save(world: World, moment: Moment) -> Step:
    """Write now, or as soon as the write that is under way has ended."""
    saving = world.saving
    if saving.writing:
        return Step(replace(world, saving=replace(saving, due=True)))
    timer: tuple[Effect, ...] = (CancelTimer(SAVE),) if saving.waiting else ()
    writing = Saving(writing=True, last=moment.now, problem=saving.problem)
    return Step(replace(world, saving=writing), (*timer, SaveHistory(collect(world))))


def fire(world: World, moment: Moment) -> Step:
    """The wait is over."""
    return save(replace(world, saving=replace(world.saving, waiting=False)), moment)


def take_saved(world: World, problem: Problem | None, moment: Moment) -> Step:
    """A write ended; one that failed is tried again, with the newest history."""
    due = world.saving.due or problem is not None
    saving = replace(world.saving, writing=False, due=due, problem=problem)
    return _schedule(replace(world, saving=saving), moment)


def _schedule(world: World, moment: Moment) -> Step:
    saving = world.saving
    if not saving.due or saving.waiting or saving.writing or world.finished:
        return Step(world)
    delay = max(SOON, saving.last + APART - moment.now)
    return Step(replace(world, saving=replace(saving, waiting=True)), (SetTimer(SAVE, delay),))


def _describe(found: History | None, boot: str) -> PreviousRun:
    if found is None:
        return PreviousRun(ended="unknown", message=REASONS["unknown"])
    ended = str(found.ended)
    if found.ended is Ending.RUNNING:
        ended = "crashed" if found.boot == boot else "power-lost"
    changes = [change for changes in found.changes.values() for change in changes]
    errors = [change for change in changes if change.code]
    newest = max(errors, key=lambda change: change.wall, default=None)
    return PreviousRun(
        ended=ended,
        message=REASONS[ended],
        started=found.started,
        last_sign=max((change.wall for change in changes), default=found.started),
        last_error=f"{newest.subject}: {newest.reason}" if newest else "",
    )


def _recall(state: ServiceState, record: ServiceRecord) -> ServiceState:
    if state.plan is None or state.plan.digest != record.digest:
        return state
    recalled = replace(
        state,
        restarts_before=record.restarts,
        failures=record.failures,
        last_exit=record.last_exit,
    )
    phase = next((phase for phase in LASTING if phase == record.phase), None)
    return replace(recalled, phase=phase, problem=record.problem) if phase else recalled


def _record(state: ServiceState) -> ServiceRecord:
    if state.plan is None:
        raise ValueError(f"{state.spec.name} has no plan and nothing to be remembered")
    return ServiceRecord(
        digest=state.plan.digest,
        phase=state.phase,
        restarts=count_restarts(state),
        failures=state.failures,
        last_exit=state.last_exit,
        problem=state.problem,
    )


def count_restarts(state: ServiceState) -> int:
    """All that are remembered of this service in this image."""
    return state.restarts_before + max(0, state.run - 1)


def _cool(record: ServiceRecord) -> ServiceRecord:
    """After a boot everything gets a new chance; the counts and the last end are kept."""
    return replace(record, phase=ServicePhase.IDLE, failures=0, problem=None)


def _subject(change: Change) -> str:
    is_service = change.subject.startswith("service ")
    return change.subject if is_service else change.subject.partition(" ")[0]


def changes_of(world: World, service: ServiceName) -> tuple[Change, ...]:
    """What is remembered of one service, oldest first."""
    return world.history.changes.get(f"service {service}", ())
