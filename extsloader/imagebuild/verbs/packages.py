"""Verbs about recipes and their packages."""

from argparse import Namespace
from pathlib import Path

from extsloader import __version__
from extsloader.imagebuild.debian.apt import open_apt
from extsloader.imagebuild.debian.archive import resolve
from extsloader.imagebuild.debian.packages import format_lock
from extsloader.imagebuild.debian.recipe import Recipe, load_images, load_lock, load_recipe
from extsloader.imagebuild.linuxkit.definition import load_definition
from extsloader.imagebuild.oci.layout import write_image
from extsloader.imagebuild.plan import Cache
from extsloader.imagebuild.prepare import load_locks, prepare_rootfs
from extsloader.imagebuild.sbom import Part, make_sbom, name_debs, name_requirements
from extsloader.imagebuild.steps import run_steps, whole_file


def lock(args: Namespace) -> None:
    """Resolve recipes anew and write their lock files."""
    for name in args.names:
        recipe = load_recipe(args.recipes / name)
        debs = resolve(recipe, open_apt(args.arch, args.cache))
        path = recipe.lock_file(args.arch)
        path.write_text(format_lock(name, debs))
        print(f"{path}: {len(debs)} packages")


def pkg(args: Namespace) -> None:
    """Make the root file systems of recipes."""
    recipes = [load_recipe(args.recipes / name) for name in args.names]
    with Cache(root=args.cache).locked():
        steps = prepare_rootfs(recipes, args)
        run_steps(steps)
    for recipe, step in zip(recipes, steps, strict=True):
        print(step.output)
        if args.oci:
            name = f"extsloader/{recipe.name}:local"
            digest = write_image(args.oci, name, step.output, recipe.oci_config, args.arch)
            print(f"{name} {digest}")


def sbom(args: Namespace) -> None:
    """Say what the images of a definition are made of."""
    recipes, others = load_images(load_definition(*args.definition), args.recipes)
    wanted = {
        name: recipe
        for name, recipe in recipes.items()
        if not args.recipe or recipe.name in args.recipe
    }
    images = {
        Part(name=name, version=__version__): _list_parts(recipe, args.arch)
        for name, recipe in wanted.items()
    }
    locks = {} if args.recipe else load_locks(args.images_lock)
    foreign = () if args.recipe else others
    images |= {Part(name=name, version=locks.get(name, "not locked")): [] for name in foreign}
    title = args.definition[0].name.partition(".")[0]
    with whole_file(args.output) as unfinished:
        unfinished.write_bytes(make_sbom(title, images, args.issued_at))


def _list_parts(recipe: Recipe, architecture: str) -> list[Part]:
    parts = name_debs(load_lock(recipe, architecture))
    if recipe.python and recipe.python.requirements:
        parts += name_requirements(Path(recipe.python.requirements).read_text())
    if recipe.python and recipe.python.project:
        parts.append(Part(name="extsloader", version=__version__))
    return parts
