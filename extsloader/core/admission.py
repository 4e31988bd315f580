"""Whether the device has room for one more start; if not, starts are put off and tried again.

Only starts are held up: what runs is the business of its limits. Each new container brings a
reading of the device's load along, so asking costs nothing while things go well.
"""

from collections.abc import Iterator
from dataclasses import replace

from extsloader.core import backoff
from extsloader.core.step import Step
from extsloader.model.effects import CancelTimer, ReadLoad, SetTimer
from extsloader.model.events import TimerId, TimerKind
from extsloader.model.machine import Load, Moment
from extsloader.model.reasons import Code, Problem
from extsloader.model.settings import Limits
from extsloader.model.world import Admission, World

TIMER = TimerId(TimerKind.ADMIT)
FRESH = 2.0  # seconds for which a reading counts
FIRST, LAST = 1.0, 30.0  # seconds between two looks at a device without room
JITTER = 0.5
MIB = 1 << 20


def admits(world: World, moment: Moment) -> bool:
    """Whether a service may be started now."""
    found = world.admission
    if found.load is None:
        return True
    return found.refusal is None and not found.asking and _is_fresh(found, moment)


def take_answer(world: World, load: Load | None, moment: Moment) -> Step:
    """The reading that was asked for."""
    answered = replace(world.admission, asking=False)
    return take_load(replace(world, admission=answered), load, moment)


def take_load(world: World, load: Load | None, moment: Moment) -> Step:
    """A new reading; without one every start is admitted."""
    before = world.admission
    refusal = _judge(load, world.settings.limits) if load else None
    now = replace(before, load=load, read_at=moment.now, refusal=refusal)
    if not refusal:
        read_at = moment.now if load else 0.0
        now = Admission(load=load, read_at=read_at, asking=before.asking)
    cancel = (CancelTimer(TIMER),) if before.deferred and not refusal else ()
    return Step(world if now == before else replace(world, admission=now), cancel)


def hold_up(world: World, moment: Moment) -> Step:
    """A start has to wait: ask how things are now, or when to ask again."""
    found = world.admission
    if found.asking or found.deferred:
        return Step(world)
    if not found.refusal or not _is_fresh(found, moment):
        return Step(replace(world, admission=replace(found, asking=True)), (ReadLoad(),))
    tries = found.tries + 1
    pause = backoff.delay(failures=tries, base=FIRST, cap=LAST, jitter=JITTER, dice=moment.dice)
    deferred = replace(found, deferred=True, tries=tries, retry_at=moment.now + pause)
    return Step(replace(world, admission=deferred), (SetTimer(TIMER, pause),))


def fire(world: World) -> Step:
    """The timer ran out: the next start that is held up asks anew."""
    old = replace(world.admission, deferred=False, read_at=float("-inf"))
    return Step(replace(world, admission=old))


def _is_fresh(found: Admission, moment: Moment) -> bool:
    return moment.now - found.read_at <= FRESH


def _judge(load: Load, limits: Limits) -> Problem | None:
    short = "; ".join(_find_shortages(load, limits))
    if not short:
        return None
    return Problem(
        Code.RESOURCE,
        f"cannot start more services now: {short}",
        "find out what uses the device up (top, /proc/pressure), or change limits.free_memory, "
        "limits.memory_pressure or limits.cpu_pressure",
    )


def _find_shortages(load: Load, limits: Limits) -> Iterator[str]:
    if load.free_memory < limits.free_memory:
        needed, free = limits.free_memory // MIB, load.free_memory // MIB
        yield f"{free} MiB of memory are free, {needed} MiB are needed"
    for kind, found, limit in (
        ("memory", load.memory_pressure, limits.memory_pressure),
        ("processor", load.cpu_pressure, limits.cpu_pressure),
    ):
        if limit and found is not None and found > limit:
            yield f"tasks waited for {kind} {found:.0f} % of the last 10 s, {limit} % are allowed"
