"""One inbox, one consumer."""

import structlog
from structlog.testing import capture_logs

from extsloader.model import events as ev
from extsloader.model.effects import Effect, Finish, ListSources, Record, SetTimer
from extsloader.model.reasons import Code, Problem
from extsloader.model.world import World
from extsloader.runtime.loop import Loop
from tests.fakes import builders

LOG = structlog.get_logger()


class Shell:
    """Remembers what the loop asked for and published."""

    def __init__(self) -> None:
        self.orders: list[Effect] = []
        self.worlds: list[World] = []
        self.loop = Loop(
            builders.world(), builders.moment, self.orders.append, self.worlds.append, LOG
        )


async def test_events_become_orders_and_worlds_until_the_end() -> None:
    shell = Shell()
    shell.loop.put(ev.AgentStarted(("udev",)))
    shell.loop.put(ev.StopAsked())
    last = await shell.loop.run()
    assert last.finished
    orders = [o for o in shell.orders if not isinstance(o, Record | SetTimer)]
    assert orders == [ListSources("udev"), Finish()]
    assert shell.worlds[-1] is last
    assert len(shell.worlds) == 2


async def test_what_changes_nothing_is_not_published() -> None:
    shell = Shell()
    shell.loop.put(ev.SourceGone("/dev/sdx"))
    shell.loop.put(ev.StopAsked())
    await shell.loop.run()
    assert len(shell.worlds) == 1


async def test_an_impossible_report_is_logged_and_ignored() -> None:
    shell = Shell()
    problem = Problem(Code.IO, "cannot read it")
    shell.loop.put(ev.Refused(builders.source().id, problem))
    shell.loop.put(ev.StopAsked())
    with capture_logs() as logs:
        await shell.loop.run()
    assert [entry["event"] for entry in logs] == ["event ignored"]
    assert logs[0]["log_level"] == "critical"
    assert logs[0]["event_type"] == "Refused"
    assert len(shell.worlds) == 1


async def test_a_loop_is_alive_while_it_takes_events_or_has_none() -> None:
    shell = Shell()
    assert shell.loop.is_alive()
    shell.loop.put(ev.SourceGone("/dev/sdx"))
    assert not shell.loop.is_alive()  # nobody takes it
    shell.loop.put(ev.StopAsked())
    await shell.loop.run()
    shell.loop.put(ev.StopAsked())
    assert shell.loop.is_alive()  # some were taken since
    assert not shell.loop.is_alive()
