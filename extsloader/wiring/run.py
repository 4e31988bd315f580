"""The agent's life, from settings to the last word."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial

from extsloader.adapters.clock import read_moment
from extsloader.adapters.journal import Journal, LibraryLog, open_journal
from extsloader.adapters.lock import take_lock
from extsloader.adapters.machine_facts import read_baked_floors, read_clock_floor, read_machine
from extsloader.adapters.notify import Notifier, take_notifier
from extsloader.core.history import begin, collect
from extsloader.core.integrity import explain_integrity, name_integrity
from extsloader.core.slot import narrow
from extsloader.model.errors import MachineError
from extsloader.model.events import AgentStarted, HistorySaved
from extsloader.model.history import Ending, History
from extsloader.model.isolation import HANDED_OVER
from extsloader.model.machine import Machine
from extsloader.model.reasons import Code, Problem
from extsloader.model.settings import Settings
from extsloader.model.trust import Bounds
from extsloader.model.world import World
from extsloader.ports.machine import CgroupPort
from extsloader.runtime.executor import Executor
from extsloader.runtime.memory_work import Recollection, recall
from extsloader.runtime.pillar import PillarLink
from extsloader.runtime.tasks import repeat
from extsloader.runtime.threads import Threads
from extsloader.settings.start import Process
from extsloader.wiring.agent import Agent
from extsloader.wiring.ports import build_ports, open_pillar

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
