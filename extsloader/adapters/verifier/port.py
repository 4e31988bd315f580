"""Runs the verify and probe helpers: untrusted bytes are read in processes that can be killed.

The request goes out and answers come back in packets of JSON, over a socket that is the helper's
standard input (`extsloader.model.helper`).
"""

import asyncio
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec

from extsloader.adapters.verifier.helpers import Helper, fork, receive, start, watch
from extsloader.model.errors import ImageRefusedError
from extsloader.model.helper import MAX_MESSAGE, Answer, Request
from extsloader.model.machine import Machine
from extsloader.model.manifest import StoredImage
from extsloader.model.reasons import Code
from extsloader.model.settings import Timeouts
from extsloader.model.source import Source, Superblock
from extsloader.model.trust import Bounds

REAP_WITHIN = 1.0  # seconds that a killed helper may take before we go on without it
MAX_STUCK = 8  # more of them would only tell again that the kernel does not let go

Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifier:
    """As `VerifierPort`; `wall` gives seconds since 1970."""

    keys: str  # directory
    root_hash: str = ""  # file
    store: str  # directory
    machine: Machine
    timeouts: Timeouts
    files: tuple[str, ...]  # names of images in the root directory of a vfat or ext4
    wall: Callable[[], float]
    python: str = "/usr/bin/python3"
    loaded: list[Helper] = field(default_factory=list)  # at most one, which forks for us
    abandoned: list[Helper] = field(default_factory=list)

    def stuck(self) -> int:
        """How many helpers were killed and hang in the kernel, where SIGKILL has to wait."""
        self.abandoned[:] = [helper for helper in self.abandoned if not helper.ended.is_set()]
        return len(self.abandoned)

    def keep(self, process: subprocess.Popen[bytes], channel: socket.socket) -> None:
        """Take a process that has loaded all that a helper needs, and forks itself for each."""
        self.loaded.append(watch(process, channel))

    async def probe(self, source: Source) -> Superblock:
        """Read the superblock. Raises ImageRefusedError."""
        request = Request(source=source, files=self.files)
        answer, _ = await self._ask("probe", request, self.timeouts.probe)
        if answer.superblock is None:
            raise _broken("something else than a superblock came back")
        return answer.superblock

    async def verify(
        self, source: Source, bounds: Bounds, progress: Report
    ) -> tuple[StoredImage, int]:
        """Verify and store; the caller owns the descriptor. Raises ImageRefusedError."""
        request = Request(
            source=source,
            files=self.files,
            machine=self.machine,
            keys=self.keys,
            root_hash=self.root_hash,
            store=self.store,
            wall=self.wall(),
            clock_floor=bounds.clock,
            floors=bounds.memory.floors,
            accepted=bounds.memory.accepted,
            baked=bounds.baked,
            key_epoch_seen=bounds.memory.key_epoch,
            min_rate=self.timeouts.min_rate,
        )
        answer, received = await self._ask("verify", request, self.timeouts.verify, progress)
        if answer.verified is None or len(received) != 1:
            _close(received)
            raise _broken("something else than one image came back")
        return answer.verified, received[0]

    async def _ask(
        self, job: str, request: Request, seconds: float, progress: Report | None = None
    ) -> tuple[Answer, list[int]]:
        """Run one helper to its last answer and the descriptors that came with it."""
        received: list[int] = []
        if (stuck := self.stuck()) >= MAX_STUCK:
            raise _all_stuck(request.source, stuck)
        try:
            async with asyncio.timeout(seconds), self._running(job, request) as helper:
                answer = await self._last_answer(helper, request.source, received, progress)
            _raise_refusal(answer)
        except BaseException as error:
            _close(received)
            if isinstance(error, TimeoutError):
                raise _too_slow(request.source, f"no verdict within {seconds:g} s") from None
            raise
        return answer, received

    @asynccontextmanager
    async def _running(self, job: str, request: Request) -> AsyncIterator[Helper]:
        """Dead in the end, and reaped as soon as the kernel lets it go, which nobody waits for."""
        helper = await self._start(job, msgspec.json.encode(request))
        try:
            yield helper
        finally:
            helper.kill()
            try:
                async with asyncio.timeout(REAP_WITHIN):
                    await helper.ended.wait()
            except TimeoutError:
                self.abandoned.append(helper)

    async def _last_answer(
        self, helper: Helper, source: Source, received: list[int], progress: Report | None
    ) -> Answer:
        """Pass on progress until something else comes; its descriptors are added to `received`."""
        while True:
            try:
                async with asyncio.timeout(self.timeouts.silence):
                    packet, whole = await receive(helper.channel, received)
            except TimeoutError:  # one read of a device can hang for ever
                raise _too_slow(source, f"no word for {self.timeouts.silence:g} s") from None
            if not packet:
                await helper.ended.wait()
                raise _broken(_describe_end(helper))
            if not whole:
                raise _broken(f"its answer is longer than {MAX_MESSAGE} bytes")
            try:
                answer = msgspec.json.decode(packet, type=Answer)
            except msgspec.DecodeError as error:
                raise _broken(f"its answer makes no sense: {error}") from error
            if answer.progress is None:
                return answer
            if progress is not None:
                progress(answer.progress.done, answer.progress.total)

    async def _start(self, job: str, packet: bytes) -> Helper:
        """Raises ImageRefusedError(E_HELPER)."""
        try:
            if self.loaded and (helper := await fork(self.loaded[0], job, packet)):
                return helper
            while self.loaded:  # it has ended, nobody needed it for long; or it hangs
                self.loaded.pop().kill()
            return start(self.python, job, packet)
        except OSError as error:
            raise _broken(f"it does not start: {error.strerror}") from error


def _raise_refusal(answer: Answer) -> None:
    if answer.refused is not None:
        raise ImageRefusedError(answer.refused.code, answer.refused.message, answer.refused.hint)


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _too_slow(source: Source, reason: str) -> ImageRefusedError:
    return ImageRefusedError(
        Code.TIMEOUT,
        f"cannot read {source.id}: {reason}",
        "the medium is too slow or hangs: try another one",
    )


def _all_stuck(source: Source, stuck: int) -> ImageRefusedError:
    return ImageRefusedError(
        Code.BUSY,
        f"cannot read {source.id}: {stuck} helpers hang in reads that the kernel does not end",
        "pull out the media that do not answer; look into the kernel's log",
    )


def _broken(reason: str) -> ImageRefusedError:
    return ImageRefusedError(
        Code.HELPER, f"cannot verify: the helper failed: {reason}", "look into the journal"
    )


def _describe_end(helper: Helper) -> str:
    if helper.process is None:
        return "it ended without a verdict"
    if (code := helper.process.returncode) < 0:
        return f"ended by signal {-code}"
    return f"exit code {code} without a verdict"
