"""Loop, executor, hub and socket of one agent."""

import os
from dataclasses import replace
from functools import partial

import extsloader
from extsloader.adapters.clock import read_moment
from extsloader.adapters.journal import Journal
from extsloader.adapters.machine_facts import read_memory
from extsloader.adapters.mounts.images import mountpoint
from extsloader.adapters.notify import Notifier
from extsloader.adapters.status_socket import StatusSocket
from extsloader.model.control import Verb
from extsloader.model.effects import Effect, KeepSocket, Reply
from extsloader.model.errors import MachineError
from extsloader.model.events import Asked, EffectFailed, HandOverAsked, PillarHeard, StopAsked
from extsloader.model.pillar import PillarConfig
from extsloader.model.status import AgentStatus, Change
from extsloader.model.world import World
from extsloader.ports.machine import Ports
from extsloader.runtime.control import Control
from extsloader.runtime.executor import Executor
from extsloader.runtime.hub import Hub, Live
from extsloader.runtime.loop import Loop
from extsloader.runtime.pillar import PillarLink
from extsloader.runtime.tasks import Tasks
from extsloader.runtime.threads import Threads
from extsloader.wiring.ports import open_logs


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
