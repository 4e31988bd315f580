"""The way of a source to its verdict.

                      Probed            Probed, filters say no
    new --> probing ---------> queued      ---------> ignored
     ^         |                 |
     |         | Refused         v        Verified
     |         +---------+-- verifying ------------> verified
     |                   |
     +---- retrying <----+----> refused
           (transient)

`present` is apart from the phase: a medium that was pulled while a helper reads it stays in its
phase until the helper's own end is reported, so at most one helper works for a source. If it is
back by then (`called_off` and present), the report is about its earlier visit: look again.

A place whose medium changes all the time begins in `retrying`: a helper costs more than an event.
"""

from collections.abc import Iterable
from dataclasses import replace

from extsloader.core import admit, backoff, floor, rollout, safe_mode
from extsloader.core.step import Step, put
from extsloader.model.effects import CancelHelper, DropImage, Effect, Probe, SetTimer, Verify
from extsloader.model.errors import IllegalTransitionError
from extsloader.model.events import TimerId, TimerKind
from extsloader.model.ids import Digest, SourceId
from extsloader.model.machine import Moment
from extsloader.model.manifest import StoredImage
from extsloader.model.reasons import TRANSIENT, Code, Problem
from extsloader.model.source import Source, SourceKind, Superblock
from extsloader.model.world import Candidate, CandidatePhase, World

REMEMBERED = 64
"""Verdicts on media that are gone are kept for questions, the oldest dropped first."""

LOOKS, LOOKS_WITHIN = 20, 60.0
"""So many looks at one place within so many seconds; a medium that changes more often waits."""

_DIGITS, _HEX = 64, frozenset("0123456789abcdef")  # of a SHA-256, as the store names its files

USELESS = frozenset({Code.DIGEST, Code.REVOKED})
IN_HELPER = frozenset({CandidatePhase.PROBING, CandidatePhase.VERIFYING})
UNDECIDED = IN_HELPER | {CandidatePhase.NEW, CandidatePhase.QUEUED}
PROVIDES = {
    "udev": frozenset({SourceKind.DEVICE}),
    "files": frozenset({SourceKind.FILE, SourceKind.STORED}),
}


def see(world: World, source: Source, moment: Moment) -> Step:
    """A source is there: new, known already, or another medium in the same place."""
    known = world.candidates.get(source.id)
    same = known is not None and known.present and known.source == source
    if same or _is_ours(world, source):
        return Step(world)
    step = lose(world, source.id.path)
    known = step.world.candidates.get(source.id)
    if known is not None and known.phase in IN_HELPER:
        return Step(_put(step.world, replace(known, source=source, present=True)), step.effects)
    return step.then(_admit, source, moment)


def lose(world: World, path: str) -> Step:
    """Whatever medium was at this path is gone: helpers are killed, verdicts are kept."""
    gone = [c for c in world.candidates.values() if c.source.id.path == path and c.present]
    working = [c for c in gone if c.phase in IN_HELPER]
    effects = tuple(CancelHelper(c.source.id) for c in working if not c.called_off)
    for candidate in gone:
        world = _put(world, replace(candidate, present=False, called_off=candidate in working))
    return Step(_forget(world), effects)


def take_listing(world: World, provider: str, sources: tuple[Source, ...], moment: Moment) -> Step:
    """The truth of one provider: what it does not list is gone."""
    listed = {source.id.path for source in sources}
    kinds = PROVIDES[provider]
    step = Step(stop_awaiting(world, provider))
    for candidate in world.candidates.values():
        path = candidate.source.id.path
        if candidate.source.kind in kinds and path not in listed:
            step = step.then(lose, path)
    for source in sources:
        step = step.then(see, source, moment)
    return step


def stop_awaiting(world: World, provider: str) -> World:
    """The first listing of a provider has come, or will not come."""
    if provider not in world.awaited:
        return world
    return replace(world, awaited=world.awaited - {provider})


def take_superblock(world: World, source: SourceId, superblock: Superblock, moment: Moment) -> Step:
    """Probing ended well: the filters decide."""
    candidate = _in_phase(world, source, CandidatePhase.PROBING)
    if _is_back(candidate):
        return _admit(world, candidate.source, moment)
    problem = admit.refuse_probed(candidate.source, superblock, world.settings.filters)
    phase = CandidatePhase.IGNORED if problem else CandidatePhase.QUEUED
    return Step(_put(world, replace(candidate, phase=phase, problem=problem, file=superblock.file)))


def take_progress(world: World, source: SourceId, done: int, total: int) -> Step:
    """So much is copied."""
    candidate = world.candidates.get(source)
    if candidate is None or candidate.phase is not CandidatePhase.VERIFYING:
        return Step(world)
    return Step(_put(world, replace(candidate, done=done, total=total)))


def accept(world: World, source: SourceId, image: StoredImage, moment: Moment) -> Step:
    """The helper vouches for the image."""
    candidate = _in_phase(world, source, CandidatePhase.VERIFYING)
    if _is_back(candidate):
        return _admit(world, candidate.source, moment)
    verified = replace(candidate, phase=CandidatePhase.VERIFIED, problem=None, digest=image.digest)
    return Step(_put(world, verified))


def refuse(world: World, source: SourceId, problem: Problem, moment: Moment) -> Step:
    """A helper said no, or ended without a word."""
    candidate = world.candidates.get(source)
    if candidate is None or candidate.phase not in IN_HELPER:
        raise IllegalTransitionError(f"a refusal for {source}, for which no helper works")
    if _is_back(candidate):
        return _admit(world, candidate.source, moment)
    if not candidate.present:
        problem = _gone(source)
    refused = replace(candidate, tries=candidate.tries + 1, problem=problem)
    if _worth_retrying(world, refused):
        return _retry(world, refused, moment)
    return Step(_put(world, replace(refused, phase=CandidatePhase.REFUSED)))


def revoke(world: World, revoked: frozenset[Digest]) -> World:
    """What was verified, and is revoked now, is refused; `images` does what follows from it."""
    bounds = replace(world.bounds, revoked=revoked)
    found = {
        id_: replace(candidate, phase=CandidatePhase.REFUSED, problem=problem)
        for id_, candidate in world.candidates.items()
        if candidate.digest and (problem := floor.refuse_revoked(candidate.digest, revoked))
    }
    return replace(world, bounds=bounds, candidates={**world.candidates, **found})


def drop_rotten(world: World) -> Step:
    """Delete files of the store that are revoked, or whose bytes are not those of their name.

    They stay while a helper verifies or an image of that digest is known: the name may stand for a
    good copy by now.
    """
    step = Step(world)
    if is_verifying(world):
        return step
    for candidate in world.candidates.values():
        if (digest := _rotten(candidate)) and digest not in world.images:
            gone = _put(step.world, replace(candidate, present=False))
            step = Step(gone, (*step.effects, DropImage(digest)))
    return step


def retry(world: World, source: SourceId) -> Step:
    """The pause after a passing fault is over."""
    candidate = world.candidates.get(source)
    if candidate is None or candidate.phase is not CandidatePhase.RETRYING:
        return Step(world)
    phase = CandidatePhase.NEW if candidate.present else CandidatePhase.REFUSED
    return Step(_put(world, replace(candidate, phase=phase)))


def start_helpers(world: World) -> Step:
    """Give free helpers their next source; verification goes before new probes."""
    step = Step(world)
    if world.stopping or not rollout.is_on(world.settings):
        return step
    for phase in (CandidatePhase.QUEUED, CandidatePhase.NEW):
        for candidate in [c for c in world.candidates.values() if c.phase is phase]:
            if _busy(step.world) < world.settings.limits.parallel_helpers or not candidate.present:
                step = step.then(_start_helper, candidate)
    return step


def cancel_helpers(world: World) -> tuple[Effect, ...]:
    """Kill the helpers at work: the agent stops."""
    return tuple(CancelHelper(c.source.id) for c in at_work(world))


def at_work(world: World) -> tuple[Candidate, ...]:
    """The candidates that a helper works for."""
    return tuple(c for c in world.candidates.values() if c.phase in IN_HELPER)


def is_verifying(world: World) -> bool:
    """Whether a helper may be about to report an image."""
    return any(c.phase is CandidatePhase.VERIFYING for c in world.candidates.values())


def is_undecided(world: World) -> bool:
    """Whether a verdict is still to be expected without waiting for a retry."""
    return bool(world.awaited) or any(
        c.present and c.phase in UNDECIDED for c in world.candidates.values()
    )


def _admit(world: World, source: Source, moment: Moment) -> Step:
    """Begin anew with a source: nothing of it has been read."""
    problem = safe_mode.refuse(world, source) or admit.refuse_unprobed(
        source, world.settings.filters, world.settings.paths.store
    )
    looks = _find_looks(world, source.id.path, moment.now)
    if problem:
        phase = CandidatePhase.IGNORED
        return Step(
            _put(world, Candidate(source=source, phase=phase, problem=problem, looks=looks))
        )
    if len(looks) < LOOKS:
        return Step(_put(world, Candidate(source=source, looks=(*looks, moment.now))))
    then = looks[-LOOKS] + LOOKS_WITHIN
    waiting = Candidate(
        source=source,
        phase=CandidatePhase.RETRYING,
        problem=_restless(source.id),
        looks=(*looks, then),
    )
    timer = SetTimer(TimerId(TimerKind.RETRY, source.id), then - moment.now)
    return Step(_put(world, waiting), (timer,))


def _find_looks(world: World, path: str, now: float) -> tuple[float, ...]:
    """When this place was looked at of late. One that was planned and has not come is none."""
    known = (c.looks for c in world.candidates.values() if c.source.id.path == path)
    newest = max(known, key=lambda looks: looks[-1:], default=())
    return tuple(look for look in newest if now - LOOKS_WITHIN < look <= now)


def _is_back(candidate: Candidate) -> bool:
    """Whether the medium was taken away and is there again since its helper began."""
    return candidate.called_off and candidate.present


def _start_helper(world: World, candidate: Candidate) -> Step:
    if not candidate.present:
        gone = replace(candidate, phase=CandidatePhase.REFUSED, problem=_gone(candidate.source.id))
        return Step(_put(world, gone))
    if candidate.phase is CandidatePhase.NEW:
        probing = replace(candidate, phase=CandidatePhase.PROBING)
        return Step(_put(world, probing), (Probe(candidate.source),))
    verifying = replace(candidate, phase=CandidatePhase.VERIFYING, done=0, total=0)
    return Step(_put(world, verifying), (Verify(candidate.source, world.bounds),))


def _retry(world: World, candidate: Candidate, moment: Moment) -> Step:
    timeouts = world.settings.timeouts
    pause = backoff.retry(timeouts, failures=candidate.tries, dice=moment.dice)
    waiting = replace(candidate, phase=CandidatePhase.RETRYING)
    timer = SetTimer(TimerId(TimerKind.RETRY, candidate.source.id), pause)
    return Step(_put(world, waiting), (timer,))


def _worth_retrying(world: World, candidate: Candidate) -> bool:
    problem = candidate.problem
    return (
        problem is not None
        and problem.code in TRANSIENT
        and candidate.present
        and not world.stopping
        and candidate.tries < world.settings.timeouts.retry_limit
    )


def _in_phase(world: World, source: SourceId, phase: CandidatePhase) -> Candidate:
    candidate = world.candidates.get(source)
    if candidate is None or candidate.phase is not phase:
        found = candidate.phase if candidate else "unknown"
        raise IllegalTransitionError(f"{source} is {found}, a report expects {phase}")
    return candidate


def _rotten(candidate: Candidate) -> Digest | None:
    """The digest in the name of a file of the store that is of no use ever again."""
    refused = candidate.present and candidate.phase is CandidatePhase.REFUSED
    if not refused or candidate.problem is None or candidate.problem.code not in USELESS:
        return None
    return _stored_digest(candidate.source)


def _stored_digest(source: Source) -> Digest | None:
    """The digest in the name of a file of the store; None for files that are not of our making."""
    digest, _, suffix = source.id.path.rpartition("/")[2].partition(".")
    ours = source.kind is SourceKind.STORED and suffix == "img" and len(digest) == _DIGITS
    return Digest(digest) if ours and set(digest) <= _HEX else None


def _is_ours(world: World, source: Source) -> bool:
    """A store file that was verified in this life needs no second look."""
    known = (image.stored.path for image in world.images.values())
    return source.kind is SourceKind.STORED and source.id.path in known


def _busy(world: World) -> int:
    return len(at_work(world))


def _gone(source: SourceId) -> Problem:
    return Problem(
        Code.GONE, f"cannot read {source}: the medium was taken away", "plug it in again"
    )


def _restless(source: SourceId) -> Problem:
    return Problem(
        Code.LIMIT,
        f"cannot read {source} yet: it changed more than {LOOKS} times in {LOOKS_WITHIN:.0f} s",
        "try another port, cable or medium",
    )


def _put(world: World, candidate: Candidate) -> World:
    return replace(world, candidates=put(world.candidates, candidate.source.id, candidate))


def _forget(world: World) -> World:
    """Drop the oldest verdicts on media that are gone; nothing that a helper works for."""
    gone = [c for c in world.candidates.values() if not c.present and c.phase not in IN_HELPER]
    dropped = _ids(gone[: max(0, len(gone) - REMEMBERED)])
    if not dropped:
        return world
    kept = {id_: c for id_, c in world.candidates.items() if id_ not in dropped}
    return replace(world, candidates=kept)


def _ids(candidates: Iterable[Candidate]) -> frozenset[SourceId]:
    return frozenset(candidate.source.id for candidate in candidates)
