"""The layers of the configuration, and which of them each value comes from.

From weak to strong: defaults, the main file, the files of `extsloader.toml.d` beside it in the
order of their names, the environment. The stronger one wins key by key; a list is one value.
"""

import json
import os
import stat
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from extsloader.model.settings import Settings
from extsloader.settings.problem import SettingProblem

PREFIX = "EXTSLOADER_"
FOR_OTHERS = frozenset({"EXTSLOADER_SOCKET"})  # extsloaderctl's
MAX_FILE = 64 << 10  # bytes; names of many parts take tomllib a time that grows with the square
MAX_DEPTH = 8  # tables in tables; there are two

Key = tuple[str, ...]


@dataclass(slots=True)
class Layers:
    """The merged tables, where each value comes from, and what was wrong so far."""

    tree: dict[str, Any] = field(default_factory=dict)
    origins: dict[Key, str] = field(default_factory=dict)
    problems: list[SettingProblem] = field(default_factory=list)

    def put(self, table: Mapping[str, Any], origin: str) -> None:
        """Lay one table over what is there. Raises ValueError for tables in tables without end."""
        self._merge(self.tree, table, origin, ())

    def _merge(
        self, below: dict[str, Any], table: Mapping[str, Any], origin: str, above: Key
    ) -> None:
        if len(above) > MAX_DEPTH:
            raise ValueError(f"tables more than {MAX_DEPTH} deep")
        for name, value in table.items():
            key = (*above, name)
            if isinstance(value, dict):
                if not isinstance(below.get(name), dict):
                    below[name] = {}
                self._merge(below[name], value, origin, key)
            else:
                below[name] = value
                self.origins[key] = origin

    def origin(self, key: Key) -> str:
        """Where the value, or the first one of the table, comes from; "" for a default."""
        below = (o for k, o in self.origins.items() if k[: len(key)] == key)
        return self.origins.get(key) or next(below, "")


def read_files(layers: Layers, config: Path, *, required: bool) -> None:
    """Lay the main file, then those of the directory beside it, over the defaults."""
    if required or config.exists():
        _read_file(layers, config)
    for path in sorted(config.with_name("extsloader.toml.d").glob("*.toml")):
        _read_file(layers, path)


def read_environment(layers: Layers, environ: Mapping[str, str]) -> None:
    """`EXTSLOADER_LIMITS__MEMORY=64M` is `limits.memory`; two underscores stand for the dot."""
    defaults = asdict(Settings())
    for variable, text in sorted(environ.items()):
        if not variable.startswith(PREFIX) or variable in FOR_OTHERS:
            continue
        key = tuple(variable.removeprefix(PREFIX).lower().split("__"))
        value: Any = text
        with suppress(ValueError, RecursionError):  # the check of the type says what is wrong
            value = _converter(defaults, key)(text)
        for name in reversed(key[:MAX_DEPTH]):
            value = {name: value}
        layers.put(value, variable)


def _read_file(layers: Layers, path: Path) -> None:
    try:
        with os.fdopen(_open(path), "rb") as file:
            problem = _refuse_writable(path, os.fstat(file.fileno()))
            layers.put(tomllib.loads(_decode(file.read(MAX_FILE + 1))), str(path))
    except OSError as error:
        hint = "create it, or leave --config out to take the defaults"
        got = error.strerror or str(error)
        layers.problems.append(SettingProblem(str(path), "", "a file that can be read", got, hint))
    except (ValueError, RecursionError) as error:  # those of TOML and UTF-8 are ValueErrors
        hint = "mend the line, see https://toml.io"
        got = "lists without end" if isinstance(error, RecursionError) else str(error)
        layers.problems.append(SettingProblem(str(path), "", "TOML in UTF-8", got, hint))
    else:
        if problem:
            layers.problems.append(problem)


def _open(path: Path) -> int:
    """Open a regular file; a FIFO would wait for somebody who writes. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError("no regular file")


def _decode(content: bytes) -> str:
    if len(content) > MAX_FILE:
        raise ValueError(f"more than {MAX_FILE} bytes")
    return content.decode()


def _refuse_writable(path: Path, info: os.stat_result) -> SettingProblem | None:
    """The daemon acts as root on what the file says, so nobody else may write it."""
    others = stat.S_IWOTH | (stat.S_IWGRP if info.st_gid else 0)
    if info.st_mode & others == 0 and info.st_uid in {0, os.geteuid()}:
        return None
    got = f"mode {stat.S_IMODE(info.st_mode):04o}, owner {info.st_uid}, group {info.st_gid}"
    expected = "a file that only root can write"
    return SettingProblem(str(path), "", expected, got, f"chown root {path}; chmod go-w {path}")


def _converter(defaults: Mapping[str, Any], key: Key) -> Callable[[str], Any]:
    """How to read a variable's text, by the type of the setting's default."""
    value: Any = defaults
    for name in key:
        value = value.get(name, "") if isinstance(value, dict) else ""
    if isinstance(value, bool) or value is None:
        return _read_bool
    if isinstance(value, int):
        return int
    if isinstance(value, float):
        return float
    return _read_list if isinstance(value, tuple) else str


def _read_bool(text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    try:
        return words[text.lower()]
    except KeyError:
        raise ValueError(text) from None


def _read_list(text: str) -> Any:
    """A JSON array, or words with commas between; nothing at all is an empty list."""
    if text.lstrip().startswith("["):
        return json.loads(text)
    return [word.strip() for word in text.split(",")] if text else []
