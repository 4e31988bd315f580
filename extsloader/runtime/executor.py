"""Takes orders from the core, has them carried out, and reports each outcome as an event."""

import asyncio
from collections.abc import Callable
from functools import partial

import msgspec
from structlog.typing import FilteringBoundLogger

from extsloader.model import effects as fx
from extsloader.model import events as ev
from extsloader.model.effects import Effect
from extsloader.model.errors import ImageRefusedError, MachineError, SettingsError
from extsloader.model.history import History
from extsloader.model.ids import Digest, SourceId
from extsloader.model.reasons import Code, Problem
from extsloader.model.status import Change
from extsloader.ports.machine import Emit, Ports
from extsloader.runtime.failures import answer
from extsloader.runtime.image_work import ImageWork
from extsloader.runtime.measure_work import MeasureWork
from extsloader.runtime.memory_work import MemoryWork
from extsloader.runtime.service_work import ServiceWork
from extsloader.runtime.tasks import Tasks
from extsloader.runtime.threads import Worker
from extsloader.runtime.timers import Timers

CANCELLED = Problem(Code.GONE, "cannot go on: the work was called off")


class Executor:
    """One task for each order that takes time; the others are done at once."""

    def __init__(
        self,
        ports: Ports,
        threads: Worker,
        emit: Emit,
        record: Callable[[Change], object],
        log: FilteringBoundLogger,
    ) -> None:
        self._sources = ports.sources
        self._device = ports.device
        self._history = ports.history
        self._load_settings = ports.load_settings
        self._read_revoked = ports.read_revoked
        self._writing = asyncio.Lock()
        self._images = ImageWork(ports, threads)
        self._measure = MeasureWork(ports, threads)
        self._memory = MemoryWork(ports, threads)
        self._services = ServiceWork(ports, threads, emit)
        self._emit = emit
        self._record = record
        self._threads = threads
        self._timers = Timers(emit)
        self._tasks = Tasks()
        self._helpers: dict[SourceId, asyncio.Task[None]] = {}
        self._log = log

    def start(self) -> None:
        """Begin to report what happens by itself."""
        self._services.start_watching()
        for source in self._sources.values():
            source.start(self._emit)

    async def close(self) -> None:
        """Call off what is in flight; services run on."""
        self._timers.close()
        await self._tasks.close()
        for source in self._sources.values():
            source.close()
        self._services.close()
        self._threads.close()
        self._images.close()

    async def clear(self, keep: Digest | None = None) -> tuple[Problem, ...]:
        """Take away what an earlier agent left of other images; returns what stays."""
        return await self._services.clear(keep or Digest(""))

    async def save(self, history: History) -> None:
        """Write the history, one after another. Raises MachineError(E_STATE)."""
        async with self._writing:
            await self._threads.run(lambda: self._history.write(msgspec.json.encode(history)))

    def execute(self, effect: Effect) -> None:
        """Carry out one order; never blocks."""
        match effect:
            case fx.SetTimer(timer, delay):
                self._timers.set(timer, delay)
            case fx.CancelTimer(timer):
                self._timers.cancel(timer)
            case fx.Record(change):
                self._record(change)
            case fx.CancelHelper(source):
                self._cancel(source)
            case fx.CallOffCreation(service):
                self._services.call_off(service)
            case fx.Finish():
                pass  # the loop reads it from its world
            case _:
                self._spawn(effect)

    async def _reload(self) -> ev.SettingsLoaded | ev.SettingsRefused:
        try:
            settings = await self._threads.run(self._load_settings)
            return ev.SettingsLoaded(settings, await self._threads.run(self._read_revoked))
        except SettingsError as error:
            return ev.SettingsRefused(error.problems)
        except MachineError as error:
            return ev.SettingsRefused((error.problem.message,))

    def _spawn(self, effect: Effect) -> None:
        task = self._tasks.spawn(type(effect).__name__, self._carry_out(effect))
        if isinstance(effect, fx.Probe | fx.Verify):
            self._helpers[effect.source.id] = task
            task.add_done_callback(partial(self._report_cancelled, effect))

    def _cancel(self, source: SourceId) -> None:
        """Once: a second time would disturb the end of the helper.

        It may have ended already, with its report still in the inbox.
        """
        task = self._helpers.pop(source, None)
        if task is not None:
            task.cancel()

    def _report_cancelled(self, effect: Effect, task: asyncio.Task[None]) -> None:
        """Not in `_carry_out`: none of it runs if the task is cancelled before its first step."""
        if task.cancelled():
            self._emit(answer(effect, CANCELLED))

    async def _carry_out(self, effect: Effect) -> None:
        try:
            event = await self._perform(effect)
        except (ImageRefusedError, MachineError) as error:
            event = answer(effect, error.problem)
        except Exception as error:  # noqa: BLE001 - the one place where a surprise becomes an event
            self._log.exception("surprise", effect=type(effect).__name__)
            event = answer(effect, _describe(effect, error))
        if isinstance(effect, fx.Probe | fx.Verify):
            self._helpers.pop(effect.source.id, None)
        if event is not None:
            self._emit(event)

    async def _perform(self, effect: Effect) -> ev.Event | None:
        match effect:
            case fx.ListSources(provider):
                return ev.SourcesListed(provider, self._sources[provider].list_sources())
            case fx.Probe(source):
                return await self._images.probe(source)
            case fx.Verify(source, bounds):
                return await self._images.verify(source, bounds, self._emit)
            case fx.MountImage(image, verity):
                for problem in await self.clear(image.digest):
                    self._log.warning("left behind", code=problem.code, reason=problem.message)
                return await self._images.mount(image, verity=verity)
            case fx.UnmountImage(digest, drop):
                return await self._images.unmount(digest, drop=drop)
            case fx.CheckImage(digest):
                return await self._images.check(digest)
            case fx.MeasureImage(digest):
                return await self._measure.measure(digest)
            case fx.DropImage(digest):
                await self._images.drop(digest)
            case fx.LoadSettings():
                return await self._reload()
            case fx.SaveHistory(history):
                await self.save(history)
                return ev.HistorySaved()
            case fx.SaveMemory(memory):
                await self._memory.save(memory)
            case fx.SaveClock(clock):
                await self._memory.save_clock(clock)
            case fx.CreateService(plan, run):
                return await self._services.create(plan, run)
            case fx.StartService(service, run):
                return await self._services.start(service, run)
            case fx.CheckReady(service, run, readiness, deadline):
                return await self._services.check(service, run, readiness, deadline)
            case fx.ReadLoad():
                return ev.LoadRead(self._device.read_load())
            case fx.SignalService(service, _, signal):
                self._services.signal(service, signal)
            case fx.KillService(service):
                self._services.kill(service)
            case fx.RemoveService(plan, run, unmount):
                return await self._services.remove(plan, run, unmount=unmount)
            case _:
                raise TypeError(f"no way to carry out {type(effect).__name__}")
        return None


def _describe(effect: Effect, error: Exception) -> Problem:
    return Problem(
        Code.STATE,
        f"cannot carry out {type(effect).__name__}: {type(error).__name__}: {error}",
        "this is a bug: please report it with the journal of extsloaderd",
    )
