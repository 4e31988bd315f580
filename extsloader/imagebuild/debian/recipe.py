"""Recipes: how to make a container's root file system from Debian packages."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from extsloader.imagebuild.debian.packages import Deb, parse_lock
from extsloader.imagebuild.linuxkit.container import Container
from extsloader.imagebuild.linuxkit.definition import Definition
from extsloader.imagebuild.yamlfile import check, read_yaml
from extsloader.model.errors import SettingsError

_LOCAL = re.compile(r"extsloader/([a-z0-9-]+):local")
"""Image names that are built from a recipe."""

Inside = Annotated[str, StringConstraints(pattern=r"^[^/].*$")]
"""A path in the root file system, without the leading slash."""


class RecipeFile(BaseModel):
    """The content of `recipe.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    packages: list[str] = Field(min_length=1, description="closed over Depends and Pre-Depends")
    exclude: list[str] = Field(default=[], description="left out with what only they need")
    prune: list[Inside] = Field(default=[], description="globs of paths to leave out")
    users: dict[str, int] = Field(default={}, description="names for numeric ids, for getpwuid(3)")
    directories: dict[Inside, int] = Field(default={}, description="more directories, their owner")
    links: dict[Inside, str] = Field(default={}, description="more symbolic links, their target")
    config: Container = Field(description="what LinuxKit's label org.mobyproject.config holds")


class Recipe(RecipeFile):
    """A recipe with its name and place."""

    name: str
    directory: Path

    @property
    def lock_file(self) -> Path:
        """Lies beside the recipe."""
        return self.directory / "packages.lock"

    @property
    def files(self) -> Path:
        """A tree that is copied over the packages' files; need not exist."""
        return self.directory / "files"


def load_recipe(directory: Path) -> Recipe:
    """Read one recipe. Raises SettingsError with all problems."""
    path = directory / "recipe.yaml"
    content = check(RecipeFile, read_yaml(path))
    return Recipe.model_construct(**dict(content), name=directory.name, directory=directory)


def load_lock(recipe: Recipe) -> tuple[Deb, ...]:
    """Read a recipe's lock file. Raises SettingsError."""
    try:
        text = recipe.lock_file.read_text()
    except FileNotFoundError as error:
        raise SettingsError(
            (f"cannot read {recipe.lock_file}: there is none; run `mkext lock {recipe.name}`",)
        ) from error
    return parse_lock(text, str(recipe.lock_file))


def load_images(definition: Definition, recipes: Path) -> dict[str, Recipe]:
    """The recipes behind a definition's images, by image name. Raises SettingsError."""
    found: dict[str, Recipe] = {}
    problems: list[str] = []
    for image in dict.fromkeys(entry.image for entry in definition.services):
        match = _LOCAL.fullmatch(image)
        if match is None:
            problems.append(
                f"cannot get the image {image}: only images from recipes are supported, "
                "extsloader/NAME:local expected"
            )
            continue
        try:
            found[image] = load_recipe(recipes / match[1])
        except SettingsError as error:
            problems += error.problems
    if problems:
        raise SettingsError(tuple(problems))
    return found
