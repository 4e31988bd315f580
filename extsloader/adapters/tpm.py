"""The TPM: a copy of the memory that outlives a disk taken out, and the register for images.

The copy is in an ordinary NV index of the owner hierarchy (TPM 2.0 Library, Part 1, "NV Memory").
An NV counter cannot take its place: it only ever goes up by one, while a floor jumps, is one for
each channel, and may be set back by a newer key set. Both are read and written by Debian's
tpm2-tools.
"""

import os
import re
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Generic, TypeVar

from extsloader.model.errors import MachineError
from extsloader.model.measurement import BANK, PCR
from extsloader.model.reasons import Code, Problem
from extsloader.ports.state import Loaded

T = TypeVar("T")

DEVICE = "/dev/tpmrm0"  # the kernel's resource manager: others may use the TPM meanwhile
PROGRAMS = "/usr/bin"
INDEX = "0x1800E57"  # in the owner's range (TCG Registry of Reserved TPM 2.0 Handles, 2.2)
SIZE = 768  # bytes; what every PC's TPM takes in one command

LOG = "measurements.json"

_DIGEST = sha256().digest_size
_VALUE = re.compile(rb"^ *%d *: *0x([0-9A-Fa-f]{64})$" % PCR, re.MULTILINE)


def find_no_tpm(device: str = DEVICE, programs: str = PROGRAMS) -> str:
    """Why there is no TPM to use, "" if there is one."""
    if not Path(device).exists():
        return f"there is no {device}"
    if not Path(programs, "tpm2_nvread").exists():
        return f"there is no {programs}/tpm2_nvread (Debian package tpm2-tools)"
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmIndex(Generic[T]):
    """As `StatePort`, without a generation before; `decode` raises ValueError."""

    decode: Callable[[bytes], T]
    tcti: str = f"device:{DEVICE}"  # tss2-tctildr(3)
    deadline: float = 10.0  # seconds for one program; a TPM that makes a key takes some

    def read(self) -> Loaded[T]:
        """What the TPM holds. Raises nothing."""
        try:
            if not self._is_defined():
                return Loaded(value=None)
            raw = self._run("tpm2_nvread", INDEX, "--hierarchy=o", f"--size={SIZE}")
            return Loaded(value=self.decode(_unpack(raw)))
        except (MachineError, ValueError) as error:
            reason = error.problem.message if isinstance(error, MachineError) else str(error)
            message = f"cannot use what the TPM remembers: {reason}"
            hint = "look at the TPM with tpm2_nvreadpublic, and at the kernel's log"
            return Loaded(value=None, problems=(Problem(Code.STATE, message, hint),))

    def write(self, payload: bytes) -> None:
        """Replace it. Raises MachineError(E_STATE)."""
        packed = sha256(payload).digest() + payload
        if len(packed) > SIZE:
            reason = f"{len(packed)} bytes are needed, {SIZE} are there"
            raise MachineError(Code.STATE, "write to the TPM", reason, "use fewer image names")
        if not self._is_defined():
            attributes = "--attributes=ownerread|ownerwrite"
            self._run("tpm2_nvdefine", INDEX, "--hierarchy=o", f"--size={SIZE}", attributes)
        self._run(
            "tpm2_nvwrite", INDEX, "--hierarchy=o", "--input=-", data=packed.ljust(SIZE, b"\0")
        )

    def _is_defined(self) -> bool:
        handles = self._run("tpm2_getcap", "handles-nv-index").decode("ascii", "replace")
        return INDEX.lower() in handles.lower().split()

    def _run(self, program: str, *arguments: str, data: bytes = b"") -> bytes:
        return run(self.tcti, self.deadline, program, *arguments, data=data)


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmRegister:
    """`RegisterPort`: one register of the SHA-256 bank, and its log in a directory of /run."""

    boot: str
    log: Path
    tcti: str = f"device:{DEVICE}"
    deadline: float = 5.0  # seconds for one program: services wait for it

    def read(self) -> bytes:
        """Its value. Raises MachineError(E_STATE)."""
        said = self._run("tpm2_pcrread", f"{BANK}:{PCR}")
        found = _VALUE.search(said)
        if found is None:
            raise _failed("tpm2_pcrread", f"no {BANK} bank got")
        return bytes.fromhex(found[1].decode("ascii"))

    def extend(self, digest: bytes) -> None:
        """Raises MachineError(E_STATE): it may have happened nevertheless."""
        self._run("tpm2_pcrextend", f"{PCR}:{BANK}={digest.hex()}")

    def read_log(self) -> bytes:
        """Raises MachineError(E_STATE)."""
        try:
            return (self.log / LOG).read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise _cannot_keep(error) from error

    def write_log(self, raw: bytes) -> None:
        """Not synced: what ends the kernel ends the boot as well, and the log with it."""
        new = self.log / f"{LOG}.new"
        try:
            new.write_bytes(raw)
            new.rename(self.log / LOG)
        except OSError as error:
            raise _cannot_keep(error) from error

    def _run(self, program: str, *arguments: str) -> bytes:
        return run(self.tcti, self.deadline, program, *arguments)


def run(tcti: str, deadline: float, program: str, *arguments: str, data: bytes = b"") -> bytes:
    """What the program writes to standard output. Raises MachineError(E_STATE)."""
    try:
        process = subprocess.Popen(
            [f"{PROGRAMS}/{program}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": PROGRAMS, "LC_ALL": "C", "TPM2TOOLS_TCTI": tcti},
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise _failed(program, os.strerror(error.errno or 0).lower()) from error
    try:
        out, said = process.communicate(data, timeout=deadline)
    except subprocess.TimeoutExpired:
        _abandon(process)
        raise _failed(program, f"no answer within {deadline:g} s") from None
    if process.returncode:
        raise _failed(program, _last_words(said) or f"exit code {process.returncode}")
    return out


def _abandon(process: subprocess.Popen[bytes]) -> None:
    """Kill it, and do not wait for long: one that hangs in the kernel cannot be killed."""
    process.kill()
    with suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=1)


def _unpack(raw: bytes) -> bytes:
    """The payload, JSON, which has no zero byte. Raises ValueError."""
    digest, payload = raw[:_DIGEST], raw[_DIGEST:].rstrip(b"\0")
    if sha256(payload).digest() != digest:
        raise ValueError("its checksum is wrong")
    return payload


def _last_words(said: bytes) -> str:
    """The line with the TPM's own words, "Esys_X(0x9A2) - tpm:session(1):...", or the first."""
    lines = [line for line in said.decode("utf-8", "replace").split("\n") if "ERROR:" in line]
    told = [line for line in lines if " - " in line] or lines
    return told[0].removeprefix("ERROR: ")[:200] if told else ""


def _failed(program: str, reason: str) -> MachineError:
    return MachineError(Code.STATE, f"run {program}", reason)


def _cannot_keep(error: OSError) -> MachineError:
    reason = os.strerror(error.errno or 0).lower()
    return MachineError(Code.STATE, "use the event log of the TPM", reason)
