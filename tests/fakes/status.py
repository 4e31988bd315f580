"""A status port that a test writes by hand."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from extsloader.model.control import Answer, Result, Verb
from extsloader.model.ids import ServiceName
from extsloader.model.reasons import Code
from extsloader.model.status import (
    AgentState,
    AgentStatus,
    CandidateStatus,
    Change,
    Explanation,
    ImageStatus,
    ServiceLimits,
    ServiceStatus,
    StatusSnapshot,
    Usage,
)
from extsloader.model.timeline import Pace, Phase, Row, Timeline

NOW = 1_700_000_000.0
LIMITS = ServiceLimits(memory=128 << 20, swap=0, cpu_weight=100, cpu_quota=None, pids=256)

READY = StatusSnapshot(
    generation=7,
    state=AgentState.READY,
    since=NOW - 60,
    image=ImageStatus(
        name="eve-pkgs",
        version="14.2.0",
        sequence=42,
        digest="0123456789abcdef" * 4,
        source="/dev/sdb1",
        source_present=True,
        integrity="store",
        phase="mounted",
        keys=("a1b2",),
    ),
    services=(
        ServiceStatus(
            name=ServiceName("collector"),
            state="ready",
            pid=812,
            since=NOW - 7380,
            essential=True,
            limits=LIMITS,
            usage=Usage(memory=12 << 20, cpu_seconds=1.5, pids=3, oom_kills=0),
        ),
    ),
    candidates=(
        CandidateStatus(device="/dev/sdb1", generation="9", verdict="verified", size=40 << 20),
    ),
    agent=AgentStatus(version="0.1.0", pid=700, started=NOW - 11520, rss=24 << 20),
)

DEGRADED = replace(
    READY,
    generation=8,
    state=AgentState.DEGRADED,
    reason="telemetry is backing off: exit code 1",
    services=(
        *READY.services,
        ServiceStatus(
            name=ServiceName("telemetry"),
            state="backing-off",
            code=Code.EXIT,
            reason="exit code 1",
            restarts=3,
            since=NOW - 4,
            retry_in=8.0,
            last_exit="exit code 1",
            limits=LIMITS,
        ),
        ServiceStatus(
            name=ServiceName("webui"),
            state="blocked",
            waiting_for=(ServiceName("telemetry"),),
            since=NOW - 180,
            requires=(ServiceName("telemetry"),),
            limits=LIMITS,
        ),
    ),
    candidates=(
        *READY.candidates,
        CandidateStatus(
            device="/dev/sdc1",
            generation="11",
            verdict="refused",
            code=Code.SIGNATURE,
            reason="no accepted key signed this manifest",
            hint="sign the image with a key of this device",
            size=40 << 20,
        ),
    ),
)

EXPLANATION = Explanation(
    service=ServiceName("webui"),
    summary="webui waits for telemetry, which keeps failing",
    steps=(
        "webui is blocked: it requires telemetry",
        "telemetry is backing off: it ended with exit code 1, 3 times in a row",
    ),
    root=ServiceName("telemetry"),
    log=("cannot reach the broker",),
    next_step="look at the log of telemetry",
)


TIMELINE = Timeline(
    started=NOW - 11520,
    after_boot=8.0,
    ready=2.0,
    until=2.0,
    critical_path=("image 0123456789ab", "service collector"),
    rows=(
        Row(
            subject="image 0123456789ab",
            phases=(
                Phase(name="mounting", pace=Pace.BUSY, begin=0.5, end=1.0),
                Phase(name="mounted", pace=Pace.RESTS, begin=1.0),
            ),
            done=1.0,
            took=0.5,
        ),
        Row(
            subject="service collector",
            phases=(
                Phase(name="creating", pace=Pace.BUSY, begin=1.0, end=1.25),
                Phase(name="created", pace=Pace.WAITS, begin=1.25, end=1.5),
                Phase(name="starting", pace=Pace.BUSY, begin=1.5, end=2.0),
                Phase(name="ready", pace=Pace.RESTS, begin=2.0),
            ),
            done=2.0,
            took=0.75,
        ),
    ),
)

ACCEPTED = Answer(result=Result.ACCEPTED, message="webui is restarted")


@dataclass(slots=True)
class FakeControl:
    """Remembers what was asked, and answers what it was told to."""

    answer: Answer = ACCEPTED
    decides: bool = True
    asked: list[tuple[Verb, str, int]] = field(default_factory=list)

    async def ask(self, verb: Verb, service: str, uid: int) -> Answer:
        self.asked.append((verb, service, uid))
        if not self.decides:
            await asyncio.Event().wait()
        return self.answer


@dataclass(slots=True)
class FakeStatus:
    """Holds one snapshot and some changes; `publish` and `add` wake the waiting readers."""

    now: StatusSnapshot = READY
    begun: Timeline = TIMELINE
    explanations: dict[str, Explanation] = field(default_factory=lambda: {"webui": EXPLANATION})
    changes: list[Change] = field(default_factory=list)
    waiters: int = 0
    reader_at: int = -1  # the last change that the last waiting reader of changes knows
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    def snapshot(self) -> StatusSnapshot:
        return self.now

    def timeline(self) -> Timeline:
        return self.begun

    def explain(self, service: ServiceName) -> Explanation | None:
        return self.explanations.get(service)

    def changes_since(self, change: int) -> tuple[Change, ...]:
        return tuple(c for c in self.changes if c.id > change)

    async def wait_beyond(self, generation: int) -> StatusSnapshot:
        await self._wait(lambda: self.now.generation > generation)
        return self.now

    async def wait_change(self, change: int) -> tuple[Change, ...]:
        self.reader_at = change
        await self._wait(lambda: self.changes_since(change))
        return self.changes_since(change)

    async def publish(self, snapshot: StatusSnapshot) -> None:
        async with self.news:
            self.now = snapshot
            self.news.notify_all()

    async def add(self, old: str, new: str, subject: str = "service telemetry") -> None:
        async with self.news:
            number = len(self.changes) + 1
            self.changes.append(
                Change(id=number, wall=NOW + number, subject=subject, old=old, new=new)
            )
            self.news.notify_all()

    async def wait_for_waiters(self, count: int) -> None:
        """Until so many readers wait for something, or, with 0, none does any more."""
        async with self.news:
            await self.news.wait_for(lambda: self.waiters == count)

    async def wait_for_reader_at(self, change: int) -> None:
        """Until a reader has all changes up to this one, and waits for more."""
        async with self.news:
            await self.news.wait_for(lambda: self.reader_at == change)

    async def _wait(self, done: Callable[[], object]) -> None:
        async with self.news:
            self._count(1)
            try:
                await self.news.wait_for(lambda: bool(done()))
            finally:
                self._count(-1)

    def _count(self, by: int) -> None:
        self.waiters += by
        self.news.notify_all()
