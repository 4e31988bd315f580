"""Input files, read strictly: every mistake in a file is named at once, with its line."""

import json
import re
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from inspect import isclass
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from extsloader.model.errors import SettingsError

Model = TypeVar("Model", bound=BaseModel)

Finding = tuple[tuple[int | str, ...], str]
"""A place in a document, as keys and indices from its root, and what is wrong there."""

_SHOWN = 60  # characters of a wrong value: a message should fit a line or two

_BOOL, _INT, _MERGE = (f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "merge"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A parsed file that still knows its lines."""

    content: object
    name: str
    root: yaml.Node | None = None


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key given twice: YAML 1.2 section 3.2.1.3 forbids it, PyYAML takes the last."""

    # YAML 1.2 section 10.3.2, as in LinuxKit: `no` is a text, and so is `22:22`.
    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own way, it copies before it adds
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_BOOL, _INT)]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == _MERGE:
                continue
            key = self.construct_object(key_node, deep=True)
            problem = (
                "expected a plain key, got a list or a mapping" if not isinstance(key, Hashable)
                else f"{key!r} is given twice" if key in seen
                else None
            )  # fmt: skip
            if problem:
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_StrictLoader.add_implicit_resolver(
    _BOOL, re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_StrictLoader.add_implicit_resolver(
    _INT,
    re.compile("^[-+]?(?:0b[01_]+|0o?[0-7_]*|0x[0-9a-fA-F_]+|[1-9][0-9_]*)$"),
    list("-+0123456789"),
)


def load_yaml(path: Path) -> object:
    """Read one YAML document; an empty file is an empty mapping. Raises SettingsError."""
    return read_yaml(path).content


def read_yaml(path: Path) -> Document:
    """Read one YAML document with its lines. Raises SettingsError."""
    return parse_yaml(_read(path), str(path))


def read_json(path: Path) -> Document:
    """Read a JSON file. Raises SettingsError."""
    try:
        return Document(content=json.loads(_read(path)), name=str(path))
    except (ValueError, RecursionError) as error:
        raise SettingsError((f"cannot read {path}: expected JSON, got {error}",)) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError((f"cannot read {path}: {str(error.strerror).lower()}",)) from error


def parse_yaml(text: bytes, name: str) -> Document:
    """Parse one YAML document. Raises SettingsError."""
    try:
        loader = _StrictLoader(text)
        root = loader.get_single_node()
        content = {} if root is None else loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise SettingsError((f"cannot read {name}: line {line}: {error.problem}",)) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise SettingsError((f"cannot read {name}: expected YAML, got {reason}",)) from error
    return Document(content=content, name=name, root=root)


def check(model: type[Model], document: Document) -> Model:
    """Turn a document into its model. Raises SettingsError with all problems."""
    try:
        return model.model_validate(document.content)
    except ValidationError as error:
        findings = [(detail["loc"], _describe(detail, model)) for detail in error.errors()]
        raise SettingsError(tell(findings, document)) from error


def tell(findings: Iterable[Finding], document: Document) -> tuple[str, ...]:
    """One sentence for each finding, with its file, line and place, in the order of lines."""
    root = document.root
    lines = [(_find_line(root, place) if root else 0, place, text) for place, text in findings]
    return tuple(
        ": ".join(
            [
                f"{document.name}:{line}" if line else document.name,
                *([".".join(map(str, place))] if place else []),
                text,
            ]
        )
        for line, place, text in sorted(lines, key=itemgetter(0))
    )


def _find_line(node: yaml.Node, place: tuple[int | str, ...]) -> int:
    """The line of the innermost part of the place that is there."""
    line = node.start_mark.line
    for part in place:
        children: dict[int | str, tuple[yaml.Node, yaml.Node]] = (
            {key.value: (key, value) for key, value in node.value}
            if isinstance(node, yaml.MappingNode)
            else {number: (item, item) for number, item in enumerate(node.value)}
        )
        if part not in children:
            break
        mark, node = children[part]
        line = mark.start_mark.line
    return line + 1


def _describe(detail: ErrorDetails, model: type[BaseModel]) -> str:
    match detail["type"]:
        case "extra_forbidden":
            return _describe_unknown(str(detail["loc"][-1]), _find_keys(model, detail["loc"]))
        case "missing":
            return "expected a value, got none: the key is missing"
        case "value_error":
            return str(detail["ctx"]["error"])
        case "model_type" | "dict_type":
            message = "expected keys and values"
        case _:
            message = detail["msg"][:1].lower() + detail["msg"][1:]
            message = message.replace("input should be", "expected", 1)
    got = repr(detail["input"])
    return f"{message}, got {got if len(got) <= _SHOWN else got[:_SHOWN] + '...'}"


def _describe_unknown(key: str, known: list[str]) -> str:
    if close := get_close_matches(key, known, 1, cutoff=0.75):
        return f"unknown key, expected {close[0]}?"
    return f"unknown key, expected one of {', '.join(known)}"


def _find_keys(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """The keys that the mapping around a place may have."""
    for part in place[:-1]:
        for name, field in model.model_fields.items():
            if part == (field.validation_alias or name):
                model = next(_find_models(field.annotation), model)
    return [str(field.validation_alias or name) for name, field in model.model_fields.items()]


def _find_models(annotation: object) -> Iterator[type[BaseModel]]:
    if isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _find_models(inner)
