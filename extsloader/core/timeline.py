"""From the agent's start to ready: what is noted meanwhile, laid out when somebody asks."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from extsloader.core import graph
from extsloader.model.ids import ServiceName, short
from extsloader.model.machine import Moment
from extsloader.model.status import AgentState, Change
from extsloader.model.timeline import NOTED, Pace, Phase, Row, Timeline
from extsloader.model.world import World

AGENT = "agent"
KINDS = (AGENT, "candidate ", "image ", "measurement ", "service ", "admission")
"""Not what operators asked for: that is not a state of anything."""

END = (AGENT, AgentState.READY)

WAITING = frozenset({"new", "queued", "retrying", "created", "backing-off", "due", "deferred"})
RESTING = frozenset(
    {"ignored", "refused", "verified", "mounted", "broken", "damaged", "idle", "ready", "parked"}
    | {"finished", "disabled", "degraded", "failed", "measured", "measurement failed", "open"}
)
STORED = "stored"
"""At rest, but no end: an image of the store is yet to be mounted."""

Noted = tuple[float, Change]
"""A change, and when it was noted, in seconds since boot."""


def lay_out(world: World, begun: Moment, noted: Sequence[Noted], now: float) -> Timeline:
    """The timeline at `now` of what was noted since `begun`."""
    changes = list(_align(begun, noted))
    ready = next((at for at, change in changes if (change.subject, change.new) == END), None)
    last = changes[-1][0] if changes else 0.0
    cut = ready is None and len(noted) >= NOTED
    rows = tuple(_lay_rows(changes))
    agent = next((row for row in rows if row.subject == AGENT), None)
    over = cut or (agent is not None and agent.phases[-1].pace is Pace.RESTS)
    return Timeline(
        started=begun.wall,
        after_boot=begun.now,
        ready=ready,
        until=last if over else round(now - begun.now, 6),
        cut=cut,
        critical_path=_find_path(world, {row.subject: row for row in rows}),
        rows=rows,
    )


def _align(begun: Moment, noted: Iterable[Noted]) -> Iterator[tuple[float, Change]]:
    """What one step has changed has one time, and so the same one on the wall."""
    at, wall = 0.0, None
    for now, change in noted:
        if change.wall != wall:
            at, wall = round(now - begun.now, 6), change.wall
        if change.subject.startswith(KINDS):
            yield at, change


def _lay_rows(changes: Iterable[tuple[float, Change]]) -> Iterator[Row]:
    found: dict[str, list[Phase]] = {}
    for at, change in changes:
        phases = found.setdefault(change.subject, [])
        if not phases and change.subject == AGENT:
            phases.append(_phase(change.old, 0.0))
        if phases:
            phases[-1] = _end(phases[-1], at)
        phases.append(_phase(change.new, at))
    rows = (_row(subject, phases) for subject, phases in found.items())
    yield from sorted(rows, key=lambda row: row.phases[0].begin)


def _phase(name: str, begin: float) -> Phase:
    word = name.partition(",")[0]  # "verified, gone"
    pace = Pace.WAITS if word in WAITING else Pace.BUSY
    return Phase(name=name, pace=Pace.RESTS if word in RESTING | {STORED} else pace, begin=begin)


def _end(phase: Phase, at: float) -> Phase:
    return Phase(name=phase.name, pace=phase.pace, begin=phase.begin, end=at)


def _row(subject: str, phases: Sequence[Phase]) -> Row:
    rests = (p.begin for p in phases if p.pace is Pace.RESTS and p.name != STORED)
    done = next(rests, None)
    busy = [
        p.end - p.begin
        for p in phases
        if p.pace is Pace.BUSY and p.end is not None and (done is None or p.end <= done)
    ]
    return Row(subject=subject, phases=tuple(phases), done=done, took=round(sum(busy), 6))


def _find_path(world: World, rows: Mapping[str, Row]) -> tuple[str, ...]:
    """From what was ready last back to what everything else waited for."""
    services = [rows.get(f"service {name}") for name in world.services]
    row = _find_latest(services) or _find_image(world, rows)
    path: list[str] = []
    while row:
        path.insert(0, row.subject)
        row = _find_behind(world, rows, row)
    return tuple(path)


def _find_behind(world: World, rows: Mapping[str, Row], row: Row) -> Row | None:
    kind, _, name = row.subject.partition(" ")
    if kind == "image":
        image = world.images.get(world.active) if world.active else None
        return rows.get(f"candidate {image.source}") if image else None
    if kind != "service":
        return None
    waited = (rows.get(f"service {other}") for other in _needs(world, ServiceName(name)))
    begin = next((p.begin for p in row.phases if p.name == "starting"), row.phases[0].begin)
    return _find_latest(waited, begin) or _find_image(world, rows)


def _find_image(world: World, rows: Mapping[str, Row]) -> Row | None:
    return rows.get(f"image {short(world.active)}") if world.active else None


def _needs(world: World, name: ServiceName) -> tuple[ServiceName, ...]:
    """What had its say before; a stage waits for all earlier ones."""
    spec = world.services[name].spec
    earlier = (n for n, state in world.services.items() if state.spec.stage < spec.stage)
    return (*graph.needs(spec), *earlier)


def _find_latest(rows: Iterable[Row | None], until: float = float("inf")) -> Row | None:
    """The one that was done last, by then."""
    done = [(row.done, row) for row in rows if row and row.done is not None and row.done <= until]
    return max(done, key=lambda pair: pair[0], default=(0.0, None))[1]
