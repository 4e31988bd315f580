"""What the next agent knows of the one before it."""

import msgspec

from extsloader.core.history import begin
from extsloader.model.events import Cause, CauseKind
from extsloader.model.history import Ending, History, Hold
from extsloader.model.ids import Digest, ServiceName
from extsloader.model.manifest import Restart, RestartPolicy, StoredImage
from extsloader.model.reasons import Code, Problem
from extsloader.model.world import World
from tests.fakes import builders
from tests.fakes.machine import FakeMachine, Medium
from tests.fakes.playbook import running

CRASH = Cause(CauseKind.CODE, 7)


def stick() -> Medium:
    worker = builders.service("worker", restart=Restart(base=1, cap=8, jitter=0, limit=5))
    return Medium(
        source=builders.source(),
        superblock=builders.squashfs(),
        verdict=builders.stored(worker, builders.service("other")),
    )


def next_world(machine: FakeMachine) -> World:
    loaded = machine.ports().history.read()
    return begin(builders.world(), loaded.value, loaded.problems, 0.0)


def last_written(machine: FakeMachine) -> History:
    return msgspec.json.decode(machine.history[-1], type=History)


async def test_a_killed_agent_has_left_counts_and_causes() -> None:
    machine = FakeMachine()
    machine.behave("worker").exits = CRASH
    async with running(machine, builders.world()) as agent:
        machine.plug(stick())
        await agent.until_service("worker", "parked")
        await agent.until(lambda _: "parked" in str(machine.history[-1:]))
    record = last_written(machine).services[ServiceName("worker")]
    assert (record.restarts, record.failures, record.last_exit) == (5, 6, CRASH)
    world = next_world(machine)
    assert world.previous
    assert world.previous.ended == "crashed"
    assert world.previous.last_error.startswith("service worker: cannot keep worker running")
    async with running(machine, world) as agent:
        assert any(change.subject == "service worker" for change in agent.hub.changes_since(0))
        machine.plug(stick())
        await agent.until_service("other", "ready")
        assert agent.service("worker").state == "parked"
        assert agent.service("worker").restarts == 5
        explanation = agent.hub.explain(ServiceName("worker"))
        assert explanation
        assert [change.new for change in explanation.history][-1] == "parked"


async def test_who_died_while_no_agent_watched_is_judged_as_if_one_had() -> None:
    machine = FakeMachine()
    machine.ends["worker"] = CRASH
    machine.ends["other"] = Cause(CauseKind.CODE, 0)
    job = builders.service("other", restart=Restart(policy=RestartPolicy.ON_FAILURE))
    medium = stick()
    medium.verdict = builders.stored(builders.service("worker"), job)
    async with running(machine, builders.world()) as agent:
        machine.plug(medium)
        await agent.until_state("ready")
        assert agent.states() == {"other": "finished", "worker": "ready"}
        assert (agent.service("worker").restarts, agent.service("worker").last_exit) == (
            1,
            "exit code 7",
        )


async def test_what_must_not_run_any_more_is_taken_away_from_an_earlier_agent() -> None:
    machine = FakeMachine()
    held = History(holds={ServiceName("worker"): Hold.PAUSED})
    async with running(machine, begin(builders.world(), held, (), 0.0)) as agent:
        machine.containers["worker"], machine.origins["worker"] = 7, stick_digest()
        machine.running.add("worker")
        machine.groups.add("worker")
        machine.plug(stick())
        await agent.until_service("worker", "paused")
        await agent.until_state("ready")
        assert "worker" not in machine.containers


def stick_digest() -> Digest:
    verdict = stick().verdict
    assert isinstance(verdict, StoredImage)
    return verdict.digest


async def test_a_crash_storm_is_written_every_five_seconds_at_most() -> None:
    machine = FakeMachine()
    machine.behave("worker").exits = CRASH
    async with running(machine, builders.world()) as agent:
        machine.plug(stick())
        await agent.until_service("worker", "parked")  # after 23 seconds
        assert len(machine.history) <= 6


async def test_a_disk_that_takes_no_history_disturbs_nobody_and_is_told() -> None:
    machine = FakeMachine()
    machine.history_fails = Problem(Code.STATE, "cannot write it: no space left on device")
    async with running(machine, builders.world()) as agent:
        machine.plug(stick())
        await agent.until_state("ready")
        snapshot = await agent.until(lambda s: bool(s.problems))
        assert [problem.code for problem in snapshot.problems] == [Code.STATE]
        assert snapshot.state == "ready"
        machine.history_fails = None
        await agent.until(lambda s: not s.problems)
    assert last_written(machine).ended is Ending.RUNNING  # the last word is the shell's
