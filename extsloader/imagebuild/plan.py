"""The steps of a build as an ordered plan, made before anything is done."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fcntl import LOCK_EX, flock
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from extsloader.imagebuild.debian.recipe import Recipe
from extsloader.imagebuild.debian.rootfs import Ingredients, make_rootfs
from extsloader.imagebuild.disk.image import Contents, make_disk
from extsloader.imagebuild.linuxkit.bundles import plan_bundles
from extsloader.imagebuild.linuxkit.definition import Definition
from extsloader.imagebuild.linuxkit.files import lay_out_files
from extsloader.imagebuild.linuxkit.layout import check_volumes, lay_out
from extsloader.imagebuild.linuxkit.spec import ImageConfig
from extsloader.imagebuild.oci.layers import flatten, unpack_layers
from extsloader.imagebuild.oci.layout import Stored
from extsloader.imagebuild.sizes import check_limit
from extsloader.imagebuild.squashfs import Compression, squash_tar
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
    def wheels(self) -> Path:
        """Archives of Python projects."""
        return self.root / "wheels"

    @property
    def images(self) -> Path:
        """Container images that were brought in, as an OCI layout."""
        return self.root / "images"

    @property
    def layers(self) -> Path:
        """Their layers, uncompressed."""
        return self.root / "layers"

    @property
    def steps(self) -> Path:
        """Outputs of steps."""
        return self.root / "steps"


def plan_rootfs(recipe: Recipe, ingredients: Ingredients, cache: Cache) -> Step:
    """The step that makes the root file system of one recipe, as a tar file."""
    key = name_by(
        recipe.model_dump(mode="json", exclude={"directory"}),
        digest_tree(read_directory(recipe.files)),
        [deb.sha256 for deb in ingredients.debs],
        [wheel.sha256 for wheel in ingredients.wheels],
    )

    def make(out: Path) -> None:
        with TemporaryDirectory(dir=cache.steps) as scratch, out.open("wb") as file:
            write_tar(make_rootfs(recipe, ingredients, cache.debs, Path(scratch)), file)

    name = f"{recipe.name}-{ingredients.architecture}.{key}.tar"
    return Step(title=f"root file system of {recipe.name}", output=cache.steps / name, make=make)


def plan_flat(reference: str, stored: Stored, cache: Cache) -> Step:
    """The step that makes the root file system of a container image, as a tar file."""
    key = name_by([layer.diff_id for layer in stored.layers])

    def make(out: Path) -> None:
        tars = unpack_layers(stored.layout, stored.layers, cache.layers)
        with out.open("wb") as file:
            write_tar(flatten(tars), file)

    # Names of steps have no dots, and images of one name are steps of their own.
    name = sha256(reference.encode()).hexdigest()[:16]
    return Step(title=f"image {reference}", output=cache.steps / f"{name}.{key}.tar", make=make)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A container image that a definition names, wherever it comes from."""

    config: ImageConfig
    rootfs: Step  # makes the tar file of its root file system


def plan_layout(
    definition: Definition,
    images: Mapping[str, Image],
    cache: Cache,
    paths: Sequence[Path],
    files_from: Path,
) -> Step:
    """The step that lays everything out as LinuxKit does; `images` by reference."""
    where = " ".join(map(str, paths))
    check_volumes(definition, where)
    configs = {reference: image.config for reference, image in images.items()}
    bundles = plan_bundles(definition, configs, where)
    files = lay_out_files(definition, files_from, where)
    key = name_by(
        definition.model_dump(mode="json"),
        digest_tree(files),
        [(reference, image.rootfs.output.name) for reference, image in sorted(images.items())],
    )

    def make(out: Path) -> None:
        trees = {ref: read_tar(image.rootfs.output) for ref, image in images.items()}
        with out.open("wb") as file:
            write_tar(lay_out(definition, bundles, trees, files), file)

    name = paths[0].name.partition(".")[0]
    output = cache.steps / f"{name}-layout.{key}.tar"
    return Step(title="layout of the image", output=output, make=make)


def plan_squashfs(layout: Step, compression: Compression, limit: int = 0) -> Step:
    """The step that makes the squashfs, of `limit` bytes at most where that is not 0."""
    key = name_by(layout.output.name, asdict(compression), limit)

    def make(out: Path) -> None:
        squash_tar(layout.output, out, compression)
        check_limit(out, limit, layout.output)

    name = f"{layout.output.name.partition('-layout.')[0]}.{key}.img"
    return Step(title="squashfs", output=layout.output.with_name(name), make=make)


def plan_disk(contents: Contents) -> Step:
    """The step that makes the bootable disk of outputs of steps."""
    conf = digest_tree(read_directory(contents.conf)) if contents.conf else ""
    key = name_by(
        contents.tar.name, contents.rootfs.name, conf, contents.hypervisor, contents.architecture,
        contents.more_words, asdict(contents.sizes),
    )  # fmt: skip
    name = f"{contents.rootfs.name.partition('.')[0]}-disk.{key}.qcow2"
    return Step(
        title="bootable disk",
        output=contents.rootfs.with_name(name),
        make=lambda out: make_disk(out, contents),
    )
