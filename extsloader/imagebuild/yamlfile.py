"""YAML and JSON-like input files, read strictly: every mistake in a file is named at once."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from extsloader.model.errors import SettingsError

Model = TypeVar("Model", bound=BaseModel)


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key given twice: YAML 1.2 section 3.2.1.3 forbids it, PyYAML takes the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"{key!r} is given twice", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def load_yaml(path: Path) -> object:
    """Read one YAML document; an empty file is an empty mapping. Raises SettingsError."""
    try:
        with path.open("rb") as file:
            document = yaml.load(file, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise SettingsError((f"cannot read {path}: {str(error.strerror).lower()}",)) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise SettingsError((f"cannot read {path}: line {line}: {error.problem}",)) from error
    return {} if document is None else document


def check(model: type[Model], document: object, where: str) -> Model:
    """Turn a document into its model. Raises SettingsError with all problems."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise SettingsError(describe(error, where)) from error


def describe(error: ValidationError, where: str) -> tuple[str, ...]:
    """One sentence for each problem, with its place in the file."""
    return tuple(
        f"{'.'.join([where, *map(str, problem['loc'])])}: {_sentence(problem['msg'])}"
        for problem in error.errors()
    )


def _sentence(message: str) -> str:
    return message[:1].lower() + message[1:]
