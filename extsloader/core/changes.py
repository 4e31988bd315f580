"""What changed between two worlds, as lines for the journal: nothing else logs decisions."""

from collections.abc import Iterator

from extsloader.core import view
from extsloader.model.ids import short
from extsloader.model.machine import Moment
from extsloader.model.measurement import Measuring
from extsloader.model.reasons import Problem
from extsloader.model.status import Change
from extsloader.model.world import Candidate, ServicePhase, World


def find_changes(old: World, new: World, moment: Moment) -> tuple[Change, ...]:
    """Every change of a phase, one each, in the order in which a reader understands them."""
    return tuple(_find(old, new, moment.wall))


def _find(old: World, new: World, wall: float) -> Iterator[Change]:
    if new.candidates is not old.candidates:
        yield from _candidates(old, new, wall)
    if new.images is not old.images:
        yield from _images(old, new, wall)
    if new.services is not old.services:
        yield from _services(old, new, wall)
    if (old.admission.tries > 0) is not (new.admission.tries > 0):
        stands = ("open", "deferred")
        was, now = stands[old.admission.tries > 0], stands[new.admission.tries > 0]
        yield _change("admission", was, now, new.admission.refusal, wall)
    before, _ = view.judge(old)
    after, reason = view.judge(new)
    if before is not after:
        yield Change(wall=wall, subject="agent", old=before, new=after, reason=reason)


def _candidates(old: World, new: World, wall: float) -> Iterator[Change]:
    for id_, candidate in new.candidates.items():
        before = old.candidates.get(id_)
        if before is candidate:
            continue
        was, now = _stand(before), _stand(candidate)
        if was != now:
            yield _change(f"candidate {id_}", was, now, candidate.problem, wall)


def _stand(candidate: Candidate | None) -> str:
    if candidate is None:
        return "unknown"
    return candidate.phase if candidate.present else f"{candidate.phase}, gone"


def _images(old: World, new: World, wall: float) -> Iterator[Change]:
    for digest, image in new.images.items():
        before = old.images.get(digest)
        was, now = view.show_phase(before) if before else "unknown", view.show_phase(image)
        if was != now:
            problem = image.damage or image.problem
            yield _change(f"image {short(digest)}", was, now, problem, wall)
        stood = before.measuring if before else Measuring.NEVER
        if image.measuring is not stood:
            subject = f"measurement of {short(digest)}"
            yield _change(subject, stood, image.measuring, image.unmeasured, wall)


def _services(old: World, new: World, wall: float) -> Iterator[Change]:
    for name, service in new.services.items():
        before = old.services.get(name)
        was = before.phase if before else ServicePhase.IDLE
        if was != service.phase:
            yield _change(f"service {name}", was, service.phase, service.problem, wall)


def _change(subject: str, old: str, new: str, problem: Problem | None, wall: float) -> Change:
    return Change(
        wall=wall,
        subject=subject,
        old=old,
        new=new,
        reason=problem.message if problem else "",
        code=problem.code if problem else None,
    )
