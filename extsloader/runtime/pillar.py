"""Life among EVE's agents: tells Pillar how we are, and hears its configuration."""

import asyncio
from collections.abc import Callable, Mapping

from structlog.typing import FilteringBoundLogger

from extsloader.core import pillar, pillar_config
from extsloader.core.gojson import encode
from extsloader.model.errors import MachineError
from extsloader.model.ids import Digest
from extsloader.model.pillar import ExtsloaderStatus, Item, PillarConfig
from extsloader.model.settings import Settings
from extsloader.model.status import StatusSnapshot
from extsloader.ports.pillar import PillarPorts
from extsloader.ports.status import StatusPort
from extsloader.runtime.loop import Clock

KEY = "global"
PAUSE = 0.1  # seconds between two messages: while services start, states change by the hundred
BEAT = 10.0  # seconds; the watchdog waits 300, and override files are looked at as often

FindMount = Callable[[Digest], str]


class PillarLink:
    """To `begin` before anything else: nobody shall be told what an earlier agent said."""

    def __init__(
        self,
        settings: Settings,
        slot: str,
        ports: PillarPorts,
        clock: Clock,
        log: FilteringBoundLogger,
    ) -> None:
        self._settings = settings.pillar
        self._ports = ports
        self._clock = clock
        self._log = log
        self._started = clock().now
        self.slot = slot  # "IMGA", "IMGB"; anything else: not known
        self._told: ExtsloaderStatus | None = None
        self._items: Mapping[str, bytes] = {}
        self._config = PillarConfig()
        self._on_config: Callable[[PillarConfig], None] = lambda _config: None

    def begin(self) -> None:
        """Be there, and starting. Raises MachineError: E_BUSY beside another agent of our name."""
        status = ExtsloaderStatus(reason="the agent starts", partition=self.slot)
        self._ports.publisher.open({KEY: _encode(status)})
        try:
            self._ports.files.claim()
        except MachineError:
            self._ports.publisher.close()
            raise
        self._tell(status)  # the state file may be an earlier agent's
        if self._settings.watchdog:
            self._try(self._ports.files.register)

    async def report(self, status: StatusPort, mountpoint: FindMount) -> None:
        """Tell each change, for ever; `mountpoint` is where the image of a digest is mounted."""
        generation = -1
        while True:
            snapshot = await self._wait(status, generation)
            self._tell(self._map(snapshot, mountpoint))
            if generation < 0:
                self._try(self._ports.publisher.signal_restarted)
            generation = snapshot.generation
            await asyncio.sleep(PAUSE)

    async def beat(self, is_alive: Callable[[], bool]) -> None:
        """Let the watchdog know, for ever, while that is so; look at the override files."""
        while True:
            if self._settings.watchdog and is_alive():
                self._try(self._ports.files.touch)
            self._look()
            await asyncio.sleep(BEAT)

    def listen(self, on_config: Callable[[PillarConfig], None]) -> None:
        """Report each other configuration from now on; until then the defaults hold."""
        self._on_config = on_config
        self._ports.subscriber.start(self._hear, self._say_odd)

    def end(self) -> None:
        """After `begin`: nobody may take us for ready any more. Raises nothing."""
        self._ports.subscriber.close()
        self._tell(ExtsloaderStatus(reason="the agent has ended", partition=self.slot))
        self._ports.publisher.close()
        self._ports.files.release()

    async def _wait(self, status: StatusPort, generation: int) -> StatusSnapshot:
        """The next snapshot, or once more the last one when the mark has come."""
        left = pillar.MARK - self._elapsed()
        try:
            async with asyncio.timeout(left if left > 0 else None):
                return await status.wait_beyond(generation)
        except TimeoutError:
            return status.snapshot()

    def _map(self, snapshot: StatusSnapshot, mountpoint: FindMount) -> ExtsloaderStatus:
        place = mountpoint(Digest(snapshot.image.digest)) if snapshot.image else ""
        return pillar.tell(snapshot, self._settings, self.slot, place, self._elapsed())

    def _tell(self, status: ExtsloaderStatus) -> None:
        if status == self._told:
            return
        self._told = status
        if self._settings.state_file:
            content = encode(pillar.show_state_file(status, self._clock().wall))
            self._try(lambda: self._ports.files.write_state(content))
        self._try(lambda: self._ports.publisher.publish(KEY, _encode(status)))

    def _look(self) -> None:
        config = pillar_config.read(self._items, self._ports.files.read_overrides())
        if config == self._config:
            return
        for sentence in config.odd:
            if sentence not in self._config.odd:
                self._say_odd(sentence)
        self._config = config
        self._on_config(config)

    def _hear(self, items: Mapping[str, bytes]) -> None:
        self._items = items
        self._look()

    def _say_odd(self, sentence: str) -> None:
        self._log.warning("Pillar's configuration", reason=sentence)

    def _try(self, work: Callable[[], None]) -> None:
        """What cannot be written is told, and life goes on."""
        try:
            work()
        except MachineError as error:
            problem = error.problem
            self._log.warning("Pillar", code=problem.code, reason=problem.message)

    def _elapsed(self) -> float:
        return self._clock().now - self._started


def _encode(status: ExtsloaderStatus) -> Item:
    fields = pillar.show(status)
    return Item(wire=encode(fields, sort=True), file=encode(fields))
