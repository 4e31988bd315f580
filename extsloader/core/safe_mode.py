"""What an agent does that has crashed again and again: only what is known to work.

It is entered after so many starts in a row that ended neither politely nor after a clean minute,
whatever it was that killed the agent. It ends with the agent's next start, if this one has lived
for a minute or was stopped politely.
"""

from extsloader.model.ids import ServiceName
from extsloader.model.reasons import Code, Problem
from extsloader.model.source import Source, SourceKind
from extsloader.model.world import World

CRASHES = 5
LEAVE = "look at the log for the reason, then leave it: systemctl restart extsloaderd"


def is_due(starts: int) -> bool:
    """Whether so many starts in a row are too many."""
    return starts > CRASHES


def explain(world: World) -> Problem | None:
    """That it is on, and how to leave it."""
    if not world.safe:
        return None
    message = f"cannot do more than the least: safe mode, after {CRASHES} crashes in a row"
    return Problem(Code.STATE, message, LEAVE)


def refuse(world: World, source: Source) -> Problem | None:
    """New images are not looked at: one of them may be the reason."""
    if not world.safe or source.kind is SourceKind.STORED:
        return None
    return Problem(Code.FILTER, f"cannot use {source.id}: safe mode takes stored images", LEAVE)


def find_optional(world: World) -> frozenset[ServiceName]:
    """The services that no essential one needs."""
    needed: set[ServiceName] = set()
    for name, state in reversed(list(world.services.items())):  # users before what they require
        if state.spec.essential or name in needed:
            needed |= {name, *state.spec.requires}
    return frozenset(world.services) - needed
