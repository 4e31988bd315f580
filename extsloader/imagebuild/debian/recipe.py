"""Recipes: how to make a container's root file system from Debian packages."""

import json
import re
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from extsloader.imagebuild.debian.packages import Deb, parse_lock
from extsloader.imagebuild.linuxkit.container import Container
from extsloader.imagebuild.linuxkit.definition import Definition
from extsloader.imagebuild.linuxkit.describe import LABEL
from extsloader.imagebuild.yamlfile import check, load_yaml, read_yaml
from extsloader.model.errors import SettingsError

_LOCAL = re.compile(r"extsloader/([a-z0-9-]+):local")
"""Image names that are built from a recipe."""

_FIRST = "amd64"  # the architecture whose lock has no architecture in its name

Inside = Annotated[str, StringConstraints(pattern=r"^[^/].*$")]
"""A path in the root file system, without the leading slash."""


class Python(BaseModel):
    """Python projects for the interpreter that is among the packages."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    requirements: str = Field(
        default="", description="pip's file with hashes; from the directory mkext runs in"
    )
    sources: list[str] = Field(default=[], description="projects that are published without wheel")
    project: bool = Field(default=False, description="the project in the directory mkext runs in")
    bytecode: bool = Field(default=True, description="also of the standard library")


class KernelParts(BaseModel):
    """What is taken of a kernel package; modules with those that they need."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    modules: list[str] = Field(description="names of modules for the root file system")
    initramfs: list[str] = Field(description="names of modules that reach it")


class RecipeFile(BaseModel):
    """The content of `recipe.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    packages: list[str] = Field(min_length=1, description="closed over Depends and Pre-Depends")
    exclude: list[str] = Field(default=[], description="left out with what only they need")
    prune: list[Inside] = Field(default=[], description="globs of paths to leave out")
    keep: list[Inside] = Field(default=[], description="globs of paths that stay in any case")
    users: dict[str, int] = Field(default={}, description="names for numeric ids, for getpwuid(3)")
    groups: dict[str, int] = Field(default={}, description="more names for groups")
    directories: dict[Inside, int] = Field(default={}, description="more directories, their owner")
    links: dict[Inside, str] = Field(default={}, description="more symbolic links, their target")
    python: Python | None = Field(default=None, description="Python projects to add")
    kernel: KernelParts | None = Field(default=None, description="makes an image of a kernel")
    config: Container = Field(description="what LinuxKit's label org.mobyproject.config holds")


class Recipe(RecipeFile):
    """A recipe with its name and place."""

    name: str
    directory: Path

    def lock_file(self, architecture: str) -> Path:
        """Lies beside the recipe."""
        kind = "" if architecture == _FIRST else f".{architecture}"
        return self.directory / f"packages{kind}.lock"

    @property
    def oci_config(self) -> dict[str, object]:
        """The configuration of its container image: all that LinuxKit reads is in the label."""
        said = load_yaml(self.directory / "recipe.yaml")
        label = said["config"] if isinstance(said, dict) else {}
        known = {"Cmd": self.config.command, "Env": self.config.env}
        given = {key: list(value) for key, value in known.items() if value}
        return given | {"Labels": {LABEL: json.dumps(label, sort_keys=True)}}

    @property
    def files(self) -> Path:
        """A tree that is copied over the packages' files; need not exist."""
        return self.directory / "files"


def load_recipe(directory: Path) -> Recipe:
    """Read one recipe. Raises SettingsError with all problems."""
    path = directory / "recipe.yaml"
    content = check(RecipeFile, read_yaml(path))
    return Recipe.model_construct(**dict(content), name=directory.name, directory=directory)


def load_lock(recipe: Recipe, architecture: str) -> tuple[Deb, ...]:
    """Read a recipe's lock file. Raises SettingsError."""
    path = recipe.lock_file(architecture)
    try:
        text = path.read_text()
    except FileNotFoundError as error:
        call = f"mkext lock --arch {architecture} {recipe.name}"
        raise SettingsError((f"cannot read {path}: there is none; run `{call}`",)) from error
    return parse_lock(text, str(path))


def load_images(definition: Definition, recipes: Path) -> tuple[dict[str, Recipe], tuple[str, ...]]:
    """The recipes behind a definition's images, by image name, and all other images.

    Raises SettingsError.
    """
    found: dict[str, Recipe] = {}
    others: list[str] = []
    problems: list[str] = []
    for image in definition.images:
        match = _LOCAL.fullmatch(image)
        if match is None:
            others.append(image)
            continue
        try:
            found[image] = load_recipe(recipes / match[1])
        except SettingsError as error:
            problems += error.problems
    if problems:
        raise SettingsError(tuple(problems))
    return found, tuple(others)
