"""A definition's containers as OCI specifications, without building anything."""

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from extsloader.imagebuild.linuxkit.container import Container, Extended
from extsloader.imagebuild.linuxkit.definition import Definition
from extsloader.imagebuild.linuxkit.spec import ImageConfig, Json, make_runtime, make_spec
from extsloader.imagebuild.yamlfile import Document, check, parse_yaml, read_json, read_yaml
from extsloader.model.errors import SettingsError

LABEL = "org.mobyproject.config"


class _ImageConfigFile(BaseModel):
    """The part of an OCI image's configuration that matters here; it has many more keys."""

    model_config = ConfigDict(extra="ignore", strict=True)

    entrypoint: list[str] | None = Field(default=None, alias="Entrypoint")
    cmd: list[str] | None = Field(default=None, alias="Cmd")
    env: list[str] | None = Field(default=None, alias="Env")
    working_dir: str | None = Field(default=None, alias="WorkingDir")
    labels: dict[str, str] | None = Field(default=None, alias="Labels")


def load_image_config(config: Path | None, label: Path | None) -> ImageConfig:
    """Read an image's configuration and its label; a label file wins over the configuration's.

    Raises SettingsError.
    """
    document = read_json(config) if config else Document(content={}, name="")
    content = document.content
    if isinstance(content, dict) and isinstance(content.get("config"), dict):  # with its envelope
        document = Document(content=content["config"], name=document.name)
    found = check(_ImageConfigFile, document)
    inner = (found.labels or {}).get(LABEL, "")
    if label:
        said = _check_label(read_yaml(label))
    else:
        said = _check_label(parse_yaml(inner.encode(), f"{config}: label {LABEL}"))
    return ImageConfig(
        args=(*(found.entrypoint or ()), *(found.cmd or ())),
        env=tuple(found.env or ()),
        cwd=found.working_dir or "",
        label=said,
    )


def _check_label(document: Document) -> Container:
    """Like LinuxKit, accept a label's `.add` lists; there is nothing that they could add to."""
    return check(Extended, document)


def describe_containers(definition: Definition, image: ImageConfig, where: str) -> list[Json]:
    """Name, config and runtime of each container. Raises SettingsError with all problems."""
    described: list[Json] = []
    problems: list[str] = []
    for section, entries in definition.sections.items():
        for entry in entries:
            try:
                config = make_spec(image, entry, definition.ids)
            except SettingsError as error:
                problems += [f"{where}: {section}.{entry.name}: {text}" for text in error.problems]
                continue
            runtime = make_runtime(image, entry, [])
            described.append({"name": entry.name, "config": config, "runtime": runtime})
    if problems:
        raise SettingsError(tuple(problems))
    return described


def to_line(described: Sequence[Json]) -> str:
    """One line of JSON with sorted keys, good to compare."""
    return json.dumps(described, sort_keys=True, separators=(",", ":"))
