"""Readers of the status never hold up the loop, and miss nothing."""

import asyncio

from extsloader.model.history import History
from extsloader.model.ids import ServiceName
from extsloader.model.machine import Moment
from extsloader.model.status import AgentState, AgentStatus, Change, Usage
from extsloader.model.timeline import NOTED
from extsloader.model.world import ServicePhase, World
from extsloader.runtime.hub import REMEMBERED, Hub, Live
from tests.fakes import builders, worlds


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> Moment:
        return builders.moment(self.now)


def open_hub(world: World | None = None, clock: Clock | None = None) -> Hub:
    return Hub(
        world or builders.world(),
        clock or Clock(),
        Live(
            agent=lambda: AgentStatus(version="1", pid=7, started=0.0),
            usage=lambda name: Usage(pids=len(name)),
            log=lambda name: (f"last word of {name}",),
            describe_log=lambda name: f"/log/{name}.log",
        ),
    )


def change(new: str) -> Change:
    return Change(subject="agent", old="searching", new=new)


async def test_a_snapshot_is_complete() -> None:
    world = worlds.running(builders.service("abc"), builders.service("off"))
    hub = open_hub(worlds.change(world, "abc", pid=9))
    snapshot = hub.snapshot()
    usage = {service.name: service.usage for service in snapshot.services}
    assert usage == {"abc": Usage(pids=3), "off": None}
    assert snapshot.agent == AgentStatus(version="1", pid=7, started=0.0)
    assert snapshot.generation == 0


async def test_an_explanation_ends_with_the_last_words_of_the_one_to_blame() -> None:
    services = (builders.service("user", requires=["base"]), builders.service("base"))
    world = worlds.running(*services, user=ServicePhase.READY, base=ServicePhase.READY)
    hub = open_hub(worlds.change(world, "base", phase=ServicePhase.PARKED))
    found = hub.explain(ServiceName("user"))
    assert found is not None
    assert (found.root, found.log) == ("base", ("last word of base",))
    well = open_hub(world).explain(ServiceName("user"))
    assert well is not None
    assert well.log == ()


async def test_since_moves_with_the_state_only() -> None:
    clock = Clock()
    hub = open_hub(clock=clock)
    clock.now = 5
    hub.publish(builders.world(overdue=True))
    assert hub.snapshot().since == builders.moment(0).wall
    hub.publish(builders.world(stopping=True))
    snapshot = hub.snapshot()
    assert (snapshot.state, snapshot.since) == (AgentState.STOPPING, builders.moment(5).wall)
    assert snapshot.generation == 2


async def test_a_reader_waits_for_something_newer() -> None:
    hub = open_hub()
    loop = asyncio.get_running_loop()
    waiting = loop.create_task(hub.wait_beyond(1))
    loop.call_soon(hub.publish, builders.world())
    loop.call_soon(hub.record, change("ready"))  # wakes readers for nothing
    loop.call_soon(hub.publish, builders.world())
    assert (await waiting).generation == 2
    assert (await hub.wait_beyond(0)).generation == 2


async def test_changes_are_numbered_and_can_be_followed() -> None:
    hub = open_hub()
    assert hub.record(change("ready")).id == 1
    hub.record(change("degraded"))
    assert [c.new for c in hub.changes_since(0)] == ["ready", "degraded"]
    waiting = asyncio.get_running_loop().create_task(hub.wait_change(2))
    asyncio.get_running_loop().call_soon(hub.record, change("failed"))
    assert [(c.id, c.new) for c in await waiting] == [(3, "failed")]
    assert [c.id for c in await hub.wait_change(1)] == [2, 3]


async def test_only_so_many_changes_are_remembered() -> None:
    hub = open_hub()
    for _ in range(REMEMBERED + 5):
        hub.record(change("ready"))
    remembered = hub.changes_since(0)
    assert (len(remembered), remembered[0].id) == (REMEMBERED, 6)


async def test_a_service_is_explained() -> None:
    hub = open_hub(worlds.running(builders.service("abc"), abc=ServicePhase.READY))
    explanation = hub.explain(ServiceName("abc"))
    assert explanation is not None
    assert explanation.summary == "abc is ready"
    assert hub.explain(ServiceName("ghost")) is None


async def test_the_timeline_is_that_of_this_start_and_ends_when_all_is_ready() -> None:
    clock = Clock()
    past = {"agent": (change("failed"),)}
    hub = open_hub(builders.world(history=History(changes=past)), clock)
    clock.now = 3.0
    hub.record(change("ready"))
    clock.now = 9.0
    hub.record(change("degraded"))
    timeline = hub.timeline()
    assert (timeline.ready, timeline.until) == (3.0, 3.0)
    assert [phase.name for phase in timeline.rows[0].phases] == ["searching", "ready"]


async def test_the_timeline_keeps_the_beginning_and_not_the_end() -> None:
    clock = Clock()
    hub = open_hub(clock=clock)
    for i in range(NOTED + 5):
        clock.now = float(i)
        hub.record(Change(wall=clock.now, subject="service a", old="idle", new="due"))
    timeline = hub.timeline()
    assert (timeline.cut, timeline.until) == (True, NOTED - 1.0)
