"""How the daemon gets its settings: it believes the checking process."""

import re
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import msgspec

from extsloader.model.errors import SettingsError
from extsloader.model.helper import MAX_MESSAGE
from extsloader.model.settings import Settings
from extsloader.settings.problem import SettingProblem
from extsloader.settings.start import Process, start_checking

DEADLINE = 30.0  # seconds; it takes 0.15 s on a quiet machine
PARAMETER = re.compile(r'(?:[^\s"]|"[^"]*(?:"|$))+')
"""The kernel splits its command line at blanks outside double quotes (lib/cmdline.c, next_arg)."""


def load_settings(config: str | None, root: str = "/") -> Settings:
    """The checked settings; blocks for the time of one Python start. Raises SettingsError."""
    try:
        process = start_checking(config, root)
    except OSError as error:
        raise _broken(str(error)) from error
    try:
        return read_settings(process)
    finally:
        end_checking(process)


def read_settings(checking: Process) -> Settings:
    """Wait for the checked settings, switched off if the kernel command line says so.

    The process stays and forks helpers. Raises SettingsError with all problems.
    """
    settings = _decode(_receive(*checking))
    cmdline = Path("/proc/cmdline").read_text(errors="replace")
    return replace(settings, enabled=False) if is_switched_off(cmdline) else settings


def end_checking(checking: Process) -> None:
    """Nothing more is wanted of it."""
    process, channel = checking
    channel.close()
    process.kill()
    process.wait()


def is_switched_off(cmdline: str) -> bool:
    """Whether the last `extsloader=` parameter is "off"; what follows `--` is for init."""
    switch = ""
    for parameter in PARAMETER.findall(cmdline):
        if parameter == "--":
            break
        if parameter.startswith("extsloader="):
            switch = parameter.removeprefix("extsloader=").strip('"')
    return switch == "off"


def _receive(process: subprocess.Popen[bytes], channel: socket.socket) -> bytes:
    channel.settimeout(DEADLINE)
    try:
        answer = channel.recv(MAX_MESSAGE)
    except OSError as error:
        raise _broken(str(error)) from error
    if not answer:
        raise _broken(f"the checking process ended with {process.wait(DEADLINE)}")
    channel.setblocking(False)
    return answer


def _decode(answer: bytes) -> Settings:
    try:
        if answer.startswith(b"{"):
            return msgspec.json.decode(answer, type=Settings)
        problems = msgspec.json.decode(answer, type=tuple[SettingProblem, ...])
    except msgspec.DecodeError as error:
        raise _broken(f"its answer makes no sense: {error}") from error
    raise SettingsError(tuple(str(problem) for problem in problems))


def _broken(reason: str) -> SettingsError:
    return SettingsError((f"cannot check the configuration: {reason}",))
