"""Carries out the order to measure an image: at most once in a boot, whatever happens meanwhile."""

import asyncio

from extsloader.core import event_log
from extsloader.core.event_log import Log
from extsloader.model.errors import MachineError
from extsloader.model.events import ImageMeasured
from extsloader.model.ids import Digest
from extsloader.model.measurement import PCR, Measurement
from extsloader.model.reasons import Code
from extsloader.ports.machine import Ports, RegisterPort
from extsloader.runtime.threads import Worker


class MeasureWork:
    """One after the other: the log is read, changed and written."""

    def __init__(self, ports: Ports, threads: Worker) -> None:
        self._register = ports.register
        self._threads = threads
        self._turn = asyncio.Lock()

    async def measure(self, image: Digest) -> ImageMeasured:
        """Raises MachineError."""
        if self._register is None:
            raise MachineError(Code.STATE, "measure the image", "there is no TPM")
        async with self._turn:
            await self._threads.run(measure, self._register, image)
        return ImageMeasured(image)


def measure(register: RegisterPort, image: Digest) -> None:
    """Extend the register, unless it has the image already. It blocks. Raises MachineError."""
    log = _look(register, _load(register))
    known = event_log.find(log, image)
    if known is None:
        log = (*log, Measurement(image=image, before=register.read()))
        _save(register, log)
        register.extend(event_log.digest_of(image))
        known = event_log.find(_look(register, log), image)
    if known is None:
        raise _cannot("the TPM has taken it, and holds the same value as before")
    if not known.sure:
        raise _cannot("somebody else has extended it meanwhile, so once more may be too often")


def _look(register: RegisterPort, log: Log) -> Log:
    """The log after a look at the register, if there is a doubt."""
    if not log or log[-1].sure:
        return log
    settled = event_log.settle(log, register.read())
    if settled != log:
        _save(register, settled)
    return settled


def _load(register: RegisterPort) -> Log:
    raw = register.read_log()
    try:
        return event_log.decode(raw, register.boot) if raw else ()
    except ValueError as error:
        raise _cannot(f"its event log cannot be used: {error}") from error


def _save(register: RegisterPort, log: Log) -> None:
    register.write_log(event_log.encode(log, register.boot))


def _cannot(reason: str) -> MachineError:
    hint = "attestation will show it; a reboot begins anew"
    return MachineError(Code.STATE, f"measure the image into PCR {PCR}", reason, hint)
