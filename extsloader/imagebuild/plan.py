"""The steps of a build as an ordered plan, made before anything is done."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fcntl import LOCK_EX, flock
from pathlib import Path
from tempfile import TemporaryDirectory

from extsloader.imagebuild.debian.packages import Deb
from extsloader.imagebuild.debian.recipe import Recipe
from extsloader.imagebuild.debian.rootfs import make_rootfs
from extsloader.imagebuild.linuxkit.definition import Definition
from extsloader.imagebuild.linuxkit.layout import lay_out, plan_bundles
from extsloader.imagebuild.linuxkit.spec import ImageConfig
from extsloader.imagebuild.squashfs import squash_tar
from extsloader.imagebuild.steps import Step, digest_tree, name_by
from extsloader.imagebuild.tree import read_directory, read_tar, write_tar


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """Where things are kept between builds; safe to delete when no build runs."""

    root: Path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other builds out: they would clear away each other's outputs."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("w") as file:
            flock(file, LOCK_EX)
            yield

    @property
    def debs(self) -> Path:
        """Package archives as they were downloaded."""
        return self.root / "debs"

    @property
    def steps(self) -> Path:
        """Outputs of steps."""
        return self.root / "steps"


def plan_rootfs(recipe: Recipe, debs: Sequence[Deb], cache: Cache) -> Step:
    """The step that makes the root file system of one recipe, as a tar file."""
    key = name_by(
        recipe.model_dump(mode="json", exclude={"directory"}),
        digest_tree(read_directory(recipe.files)),
        [deb.sha256 for deb in debs],
    )

    def make(out: Path) -> None:
        with TemporaryDirectory(dir=cache.steps) as scratch, out.open("wb") as file:
            write_tar(make_rootfs(recipe, debs, cache.debs, Path(scratch)), file)

    title = f"root file system of {recipe.name}"
    return Step(title=title, output=cache.steps / f"{recipe.name}.{key}.tar", make=make)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A container image that a definition names, wherever it comes from."""

    config: ImageConfig
    rootfs: Step  # makes the tar file of its root file system


def plan_layout(
    definition: Definition, images: Mapping[str, Image], cache: Cache, path: Path
) -> Step:
    """The step that lays the containers out as LinuxKit does; `images` by reference."""
    configs = {reference: image.config for reference, image in images.items()}
    bundles = plan_bundles(definition, configs, str(path))
    key = name_by(
        definition.model_dump(mode="json"),
        [(reference, image.rootfs.output.name) for reference, image in sorted(images.items())],
    )

    def make(out: Path) -> None:
        trees = {ref: read_tar(image.rootfs.output) for ref, image in images.items()}
        with out.open("wb") as file:
            write_tar(lay_out(bundles, trees), file)

    name = path.name.partition(".")[0]
    output = cache.steps / f"{name}-layout.{key}.tar"
    return Step(title="layout of the services", output=output, make=make)


def plan_squashfs(layout: Step, level: int) -> Step:
    """The step that makes the squashfs."""
    key = name_by(layout.output.name, level)
    return Step(
        title="squashfs",
        output=layout.output.with_name(f"{layout.output.name.partition('-')[0]}.{key}.img"),
        make=lambda out: squash_tar(layout.output, out, level=level),
    )
