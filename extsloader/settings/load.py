"""How the daemon gets its settings: it starts the checking process and believes its answer."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec

import extsloader
from extsloader.model.errors import SettingsError
from extsloader.model.settings import Settings
from extsloader.settings.problem import SettingProblem

DEADLINE = 30.0  # seconds; it takes 0.15 s on a quiet machine
PARAMETER = re.compile(r'(?:[^\s"]|"[^"]*(?:"|$))+')
"""The kernel splits its command line at blanks outside double quotes (lib/cmdline.c, next_arg)."""


def load_settings(config: str | None, root: str = "/") -> Settings:
    """The checked settings, switched off if the kernel command line says so.

    Blocks for the time of one Python start. Raises SettingsError with all problems.
    """
    settings = _decode(_run(config, root))
    cmdline = Path("/proc/cmdline").read_text(errors="replace")
    return replace(settings, enabled=False) if is_switched_off(cmdline) else settings


def is_switched_off(cmdline: str) -> bool:
    """Whether the last `extsloader=` parameter is "off"; what follows `--` is for init."""
    switch = ""
    for parameter in PARAMETER.findall(cmdline):
        if parameter == "--":
            break
        if parameter.startswith("extsloader="):
            switch = parameter.removeprefix("extsloader=").strip('"')
    return switch == "off"


def _run(config: str | None, root: str) -> subprocess.CompletedProcess[bytes]:
    # -P -s and an environment of our own isolate as -I does, but find a package that is not
    # installed, too.
    argv = [sys.executable, "-P", "-s", "-m", "extsloader.settings", f"--root={root}"]
    argv += [f"--config={config}"] if config is not None else []
    ours = {k: v for k, v in os.environ.items() if k.startswith("EXTSLOADER_")}
    home = str(Path(extsloader.__file__).parents[1])
    environment = {**ours, "PYTHONPATH": home, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        return subprocess.run(
            argv, env=environment, capture_output=True, timeout=DEADLINE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SettingsError((f"cannot check the configuration: {error}",)) from error


def _decode(done: subprocess.CompletedProcess[bytes]) -> Settings:
    try:
        if done.returncode == 0:
            return msgspec.json.decode(done.stdout, type=Settings)
        problems = msgspec.json.decode(done.stdout, type=tuple[SettingProblem, ...])
    except msgspec.DecodeError:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        reason = last or f"the checking process ended with {done.returncode}"
        raise SettingsError((f"cannot check the configuration: {reason}",)) from None
    raise SettingsError(tuple(str(problem) for problem in problems))
