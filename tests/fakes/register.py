"""A register that is only in memory; the agent can die before or after any call to it."""

from hashlib import sha256

from extsloader.core import event_log
from extsloader.core.event_log import Log
from extsloader.model.errors import MachineError
from extsloader.model.reasons import Code


class KilledError(BaseException):
    """kill -9: nothing of the agent runs after it."""


class FakeRegister:
    boot = "this"

    def __init__(self) -> None:
        self.value = event_log.START
        self.raw = b""
        self.fails = False
        self.broken = False  # takes what it gets, and nothing comes of it
        self.lives = 1 << 30  # halves of calls until the agent dies
        self.extended: list[bytes] = []

    def log(self) -> Log:
        return event_log.decode(self.raw, self.boot) if self.raw else ()

    def read(self) -> bytes:
        self._pass()
        if self.fails:
            raise MachineError(Code.STATE, "run tpm2_pcrread", "no answer within 5 s")
        return self.value

    def extend(self, digest: bytes) -> None:
        self._pass()
        if not self.broken:
            self.value = sha256(self.value + digest).digest()
        self.extended.append(digest)
        self._pass()

    def read_log(self) -> bytes:
        return self.raw

    def write_log(self, raw: bytes) -> None:
        self._pass()
        self.raw = raw
        self._pass()

    def _pass(self) -> None:
        self.lives -= 1
        if self.lives < 0:
            raise KilledError
