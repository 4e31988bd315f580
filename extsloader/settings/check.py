"""Check the whole configuration and tell all problems at once."""

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from extsloader.model.settings import Paths
from extsloader.settings.layers import Key, Layers, read_environment, read_files
from extsloader.settings.problem import SettingProblem
from extsloader.settings.schema import SettingsTable

DEFAULT_CONFIG = "/etc/extsloader/extsloader.toml"
PREAMBLE = re.compile(r"^\w+ should (be |have )?")  # "expected" stands there already
TOML_WORDS = {"model_type": "a table", "tuple_type": "a list"}
SHOWN = 80  # characters of a wrong value


def check(
    config: str | None, root: str, environ: Mapping[str, str]
) -> tuple[SettingsTable | None, list[SettingProblem]]:
    """The checked settings, or None and what is wrong; without `config` its default below root."""
    layers = Layers()
    try:
        root = os.path.abspath(root)  # noqa: PTH100 - links stay as the operator wrote them
    except FileNotFoundError:
        got = "one in a working directory that was deleted"
        return None, [SettingProblem("--root", "", "a directory", got, "give an absolute path")]
    layers.put({"paths": asdict(Paths().below(root))}, "default")
    path = Path(config or root.rstrip("/") + DEFAULT_CONFIG)
    read_files(layers, path, required=config is not None)
    read_environment(layers, environ)
    try:
        settings = SettingsTable.model_validate(layers.tree)
    except ValidationError as error:
        details = error.errors(include_url=False)
        return None, layers.problems + [_describe(layers, detail) for detail in details]
    return None if layers.problems else settings, layers.problems


def _describe(layers: Layers, detail: ErrorDetails) -> SettingProblem:
    key = tuple(str(part) for part in detail["loc"] if isinstance(part, str))
    file = layers.origin(key)
    if detail["type"] == "extra_forbidden":
        return SettingProblem(file, ".".join(key), "a known key", repr(key[-1]), _guess(key))
    said = PREAMBLE.sub("", detail["msg"]).replace("match pattern", "text like")
    expected = TOML_WORDS.get(detail["type"], said)
    got = repr(detail["input"])
    if isinstance(detail["input"], BaseModel):
        got = "other values"
    return SettingProblem(file, ".".join(key), expected, _shorten(got), "change the value")


def _guess(key: Key) -> str:
    known = list(_keys(SettingsTable))
    close = difflib.get_close_matches(".".join(key), known, n=1, cutoff=0.6)
    same_name = [k for k in known if k.rpartition(".")[2] == key[-1]]
    if close or same_name:
        return f"did you mean {(same_name or close)[0]}?"
    return "remove it; docs/operations.md lists the keys"


def _keys(model: type[BaseModel], above: str = "") -> list[str]:
    keys = []
    for name, info in model.model_fields.items():
        keys.append(above + name)
        kind: Any = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            keys += _keys(kind, f"{above}{name}.")
    return keys


def _shorten(text: str) -> str:
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
