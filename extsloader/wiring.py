"""The one place that knows which adapter stands behind which port."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec

import extsloader
from extsloader.adapters.cgroups.factory import open_cgroups
from extsloader.adapters.clock import read_moment
from extsloader.adapters.containerd import ContainerdRuntime
from extsloader.adapters.directory import FileSources
from extsloader.adapters.journal import Journal, LibraryLog, open_journal
from extsloader.adapters.lock import take_lock
from extsloader.adapters.machine_facts import (
    Device,
    read_baked_floors,
    read_clock_floor,
    read_machine,
    read_memory,
    read_revoked_images,
)
from extsloader.adapters.mounts.images import mountpoint
from extsloader.adapters.mounts.port import Mounts
from extsloader.adapters.notify import Notifier, take_notifier
from extsloader.adapters.oci.runtime import OciRuntime
from extsloader.adapters.readiness import ServiceReadiness
from extsloader.adapters.service_log import ServiceLogs
from extsloader.adapters.state_file import StateFile
from extsloader.adapters.status_socket import StatusSocket
from extsloader.adapters.store import Store
from extsloader.adapters.tpm import TpmIndex, TpmRegister, find_no_tpm
from extsloader.adapters.udev import UdevSources
from extsloader.adapters.verifier import Verifier
from extsloader.core.history import begin, collect, is_possible
from extsloader.core.integrity import explain_integrity, name_integrity
from extsloader.core.slot import narrow
from extsloader.model.control import Verb
from extsloader.model.effects import Effect, KeepSocket, Reply
from extsloader.model.errors import MachineError
from extsloader.model.events import (
    AgentStarted,
    Asked,
    EffectFailed,
    HandOverAsked,
    HistorySaved,
    PillarHeard,
    StopAsked,
)
from extsloader.model.history import Ending, History
from extsloader.model.isolation import HANDED_OVER
from extsloader.model.machine import Machine
from extsloader.model.pillar import AGENT, PillarConfig
from extsloader.model.reasons import Code, Problem
from extsloader.model.settings import Settings
from extsloader.model.status import AgentStatus, Change
from extsloader.model.trust import Bounds
from extsloader.model.world import World
from extsloader.ports.machine import CgroupPort, Ports, SourcePort
from extsloader.ports.pillar import PillarPorts
from extsloader.runtime.control import Control
from extsloader.runtime.executor import Executor
from extsloader.runtime.hub import Hub, Live
from extsloader.runtime.loop import Loop
from extsloader.runtime.memory_work import Recollection, decode_clock, decode_memory, recall
from extsloader.runtime.pillar import PillarLink
from extsloader.runtime.tasks import Tasks, repeat
from extsloader.runtime.threads import Threads
from extsloader.settings.start import Process

SAVE_TIME = 5.0  # seconds that a disk may take
KEEP_LOGS = 10.0  # seconds; what a service writes beyond one file meanwhile is lost


def run(settings: Settings, checking: Process, load: Callable[[], Settings]) -> int:
    """Run until stopped; 0 after a clean stop, 1 with something left behind.

    HANDED_OVER when the agent is to be started anew in the same process.
    `checking` is the process that has checked the settings: it forks the first helpers.
    `load` reads the settings anew; it raises SettingsError.
    """
    journal = open_journal(settings.log_format)
    logging.getLogger().addHandler(LibraryLog(journal))
    try:
        notifier = take_notifier(os.environ)
        world, left = asyncio.run(serve(settings, journal, notifier, checking, load))
    except MachineError as error:
        problem = error.problem
        journal.log.critical(
            "stopped", code=problem.code, reason=problem.message, hint=problem.hint
        )
        return 1
    if world.handing_over:
        return HANDED_OVER
    for problem in left:
        journal.log.error("left behind", code=problem.code, reason=problem.message)
    return 1 if left else 0


async def serve(
    settings: Settings,
    journal: Journal,
    notifier: Notifier,
    checking: Process,
    load: Callable[[], Settings],
) -> tuple[World, list[Problem]]:
    """Run until asked to stop; the last world and what stays. Raises MachineError at the start."""
    async with AsyncExitStack() as stack:
        stack.callback(os.close, take_lock(settings.paths.run))
        link = open_pillar(settings, journal)
        if link is not None:
            stack.callback(link.end)
            settings = narrow(settings, link.slot)
            load = partial(_load_narrowed, load, link.slot)
        machine = read_machine(settings)
        journal.log.info(
            "image integrity",
            integrity=name_integrity(settings, machine),
            reason=explain_integrity(settings, machine),
        )
        ports = build_ports(settings, machine, checking, load)
        for sentence in ports.cgroups.open_parent():
            journal.log.warning("limit for all services not granted", reason=sentence)
        left: list[Problem] = []
        stack.callback(_close_parent, ports.cgroups, left)  # stays while a service is in it
        threads = Threads()
        recollection = await threads.run(recall, ports)
        for problem in recollection.problems:
            journal.log.warning("memory damaged", code=problem.code, reason=problem.message)
        found = await threads.run(ports.history.read)
        begun = begin(
            _first_world(settings, machine, recollection, measures=ports.register is not None),
            found.value,
            found.problems,
            read_moment().wall,
        )
        if begun.previous:
            journal.log.info("the run before", reason=begun.previous.message)
        world = await _run(Agent(begun, ports, threads, journal, notifier), link, stack, left)
    return world, left


def build_ports(
    settings: Settings, machine: Machine, checking: Process, load: Callable[[], Settings]
) -> Ports:
    """The real machine. Raises MachineError where a program or a directory is missing."""
    paths = settings.paths
    store = Store(paths.store)
    store.ensure()
    sources: list[SourcePort] = [FileSources(paths.watch, paths.store)]
    if settings.udev:
        sources.append(UdevSources())
    verifier = Verifier(
        keys=paths.keys,
        root_hash=paths.root_hash,
        store=paths.store,
        machine=machine,
        timeouts=settings.timeouts,
        files=settings.filters.files,
        wall=lambda: read_moment().wall,
        python=sys.executable,
    )
    verifier.keep(*checking)
    cgroups = open_cgroups(settings.cgroup, settings.limits)
    runtime = open_runtime(settings, machine, cgroups)
    tpm = not find_no_tpm()
    return Ports(
        sources={source.provider: source for source in sources},
        verifier=verifier,
        mounts=Mounts(paths.run),
        cgroups=cgroups,
        runtime=runtime,
        readiness=ServiceReadiness(runtime.execute),
        store=store,
        device=Device(),
        history=StateFile(
            path=Path(paths.state) / "history",
            kind="history",
            decode=_decode_history,
            limit=1 << 20,
        ),
        load_settings=load,
        read_revoked=partial(read_revoked_images, paths.keys),
        memory=tuple(
            StateFile(path=Path(path), kind="images", decode=decode_memory) for path in paths.memory
        ),
        seal=TpmIndex(decode=decode_memory) if tpm else None,
        register=TpmRegister(boot=machine.boot, log=Path(paths.run)) if tpm else None,
        clock=StateFile(path=Path(paths.clock), kind="clock", decode=decode_clock),
    )


def open_runtime(
    settings: Settings, machine: Machine, cgroups: CgroupPort
) -> OciRuntime | ContainerdRuntime:
    """The backend that is configured. Raises MachineError where a program is missing."""
    if settings.runtime != "containerd":
        return OciRuntime(settings, machine, open_logs(settings))
    return ContainerdRuntime(settings, cgroups, open_logs(settings))


def open_pillar(settings: Settings, journal: Journal) -> PillarLink | None:
    """Be one of Pillar's agents, if that is wanted. Raises MachineError(E_BUSY) beside another."""
    if not settings.pillar.enabled:
        return None
    from extsloader.adapters.agent_files import AgentFiles  # noqa: PLC0415 - no other device
    from extsloader.adapters.pubsub import Publisher, Subscriber, Topic  # noqa: PLC0415 - has it

    run = settings.paths.pillar
    files = AgentFiles(run)
    ports = PillarPorts(
        publisher=Publisher(Topic(agent=AGENT, name="ExtsloaderStatus", run=run)),
        subscriber=Subscriber(Topic(agent="zedagent", name="ConfigItemValueMap", run=run)),
        files=files,
    )
    link = PillarLink(settings, files.read_slot(), ports, read_moment, journal.log)
    link.begin()
    return link


def open_logs(settings: Settings) -> ServiceLogs:
    """All that it knows lies in files, so there may be several."""
    memlogd = settings.paths.memlogd if settings.logs.to == "auto" else ""
    return ServiceLogs(settings.paths.logs, settings.logs.size, memlogd)


def _load_narrowed(load: Callable[[], Settings], slot: str) -> Settings:
    """Raises SettingsError."""
    return narrow(load(), slot)


def _first_world(
    settings: Settings, machine: Machine, recollection: Recollection, *, measures: bool
) -> World:
    """Nothing is known of any medium yet. Raises MachineError for bad floors beside the keys."""
    bounds = Bounds(
        memory=recollection.memory,
        baked=read_baked_floors(settings.paths.keys),
        clock=max(read_clock_floor(), recollection.clock),
    )
    return World(
        settings=settings,
        machine=machine,
        bounds=bounds,
        stale_memory=recollection.stale,
        sealed=recollection.sealed,
        measures=measures,
        problems=recollection.problems,
    )


def _decode_history(payload: bytes) -> History:
    """Raises ValueError."""
    history = msgspec.json.decode(payload, type=History)
    if is_possible(history):
        return history
    raise ValueError("it says what cannot be")


class Agent:
    """Loop, executor and hub, joined: each needs one end of another."""

    def __init__(
        self,
        world: World,
        ports: Ports,
        threads: Threads,
        journal: Journal,
        notifier: Notifier,
    ) -> None:
        settings = world.settings
        started = AgentStatus(
            version=extsloader.__version__, pid=os.getpid(), started=world.history.started
        )
        self.settings = settings
        self.notifier = notifier
        self.providers = tuple(ports.sources)
        self.logs = open_logs(settings)
        self.hub = Hub(
            world,
            read_moment,
            Live(
                agent=lambda: replace(
                    started, rss=read_memory(), stuck_helpers=ports.verifier.stuck()
                ),
                usage=ports.cgroups.usage,
                log=self.logs.read_tail,
                describe_log=self.logs.describe,
            ),
        )
        self.loop = Loop(world, read_moment, self._execute, self.hub.publish, journal.log)
        self.control = Control(self.loop.put)
        self.socket = StatusSocket(
            self.hub, self.control, settings.paths.socket, settings.socket_group
        )
        self.tasks = Tasks()
        self.executor = Executor(ports, threads, self.loop.put, self._record, journal.log)
        self._journal = journal

    def ask_to_stop(self) -> None:
        """Begin the end: SIGTERM."""
        self.notifier.stopping()
        self.loop.put(StopAsked())

    def ask_to_hand_over(self) -> None:
        """Make room for a newer agent: SIGUSR2."""
        self.loop.put(HandOverAsked())

    def ask_to_reload(self) -> None:
        """Take over the configuration: SIGHUP."""
        self.loop.put(Asked(verb=Verb.RELOAD, uid=0))

    def join(self, link: PillarLink) -> None:
        """Live among Pillar's agents."""
        mounted = partial(mountpoint, self.settings.paths.run)
        telling = self.tasks.spawn("tell Pillar", link.report(self.hub, mounted))
        # A bug in telling is for the watchdog: an old "ready" must not stand for ever.
        alive = self.loop.is_alive
        self.tasks.spawn("beat", link.beat(lambda: alive() and not telling.done()))
        link.listen(self._take_pillar)

    def _take_pillar(self, config: PillarConfig) -> None:
        self._journal.set_level(config.log_level)
        self.loop.put(PillarHeard(config.held))

    def _execute(self, effect: Effect) -> None:
        match effect:
            case Reply(request, answer):
                self.control.reply(request, answer)
            case KeepSocket():
                self.tasks.spawn("keep the socket", self._keep_socket())
            case _:
                self.executor.execute(effect)

    async def _keep_socket(self) -> None:
        try:
            await self.socket.keep()
        except MachineError as error:
            self.loop.put(EffectFailed(error.problem))

    def _record(self, change: Change) -> None:
        self._journal.write_change(self.hub.record(change))
        if change.subject == "agent":
            self.notifier.say(f"{change.new}: {change.reason}")


async def _run(
    agent: Agent, link: PillarLink | None, stack: AsyncExitStack, left: list[Problem]
) -> World:
    await agent.socket.start()
    stack.push_async_callback(agent.socket.close)
    stack.push_async_callback(agent.tasks.close)
    stack.push_async_callback(agent.executor.close)
    if problem := await _save(agent.executor, collect(agent.loop.world)):
        agent.loop.put(HistorySaved(problem))  # it is told, and tried again
    agent.executor.start()
    handlers = {
        signal.SIGTERM: agent.ask_to_stop,
        signal.SIGINT: agent.ask_to_stop,
        signal.SIGHUP: agent.ask_to_reload,
        signal.SIGUSR2: agent.ask_to_hand_over,
    }
    for number, handler in handlers.items():
        asyncio.get_running_loop().add_signal_handler(number, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, handlers)  # the launcher held them back
    _keep_alive(agent.notifier)
    agent.tasks.spawn("keep logs", repeat(agent.logs.keep, KEEP_LOGS))
    agent.loop.put(AgentStarted(agent.providers))
    if link is not None:
        agent.join(link)
    agent.notifier.ready()
    world = await agent.loop.run()
    if not world.handing_over:  # what could not be undone earlier gets its last chance
        left += await agent.executor.clear()
    ending = Ending.HANDED_OVER if world.handing_over else Ending.STOPPED
    if problem := await _save(agent.executor, replace(collect(world), ended=ending)):
        left.append(problem)
    return world


async def _save(executor: Executor, history: History) -> Problem | None:
    """Before anything else is done, and after everything is; why it could not be written."""
    try:
        async with asyncio.timeout(SAVE_TIME):
            await executor.save(history)
    except MachineError as error:
        return error.problem
    except TimeoutError:
        return Problem(Code.STATE, f"cannot write the history within {SAVE_TIME:g} s")
    return None


def _close_parent(cgroups: CgroupPort, left: list[Problem]) -> None:
    """Raises nothing: when a start fails, services of an earlier agent may run in it."""
    try:
        cgroups.close_parent()
    except MachineError as error:
        left.append(error.problem)


def _keep_alive(notifier: Notifier) -> None:
    """Tell the watchdog, while the event loop turns, that it turns."""
    if notifier.watchdog is None:
        return
    notifier.keep_alive()
    loop = asyncio.get_running_loop()
    loop.call_later(notifier.watchdog / 2, _keep_alive, notifier)
