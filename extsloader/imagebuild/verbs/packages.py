"""Verbs about recipes and their packages."""

from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from extsloader import __version__
from extsloader.imagebuild.debian.apt import open_apt
from extsloader.imagebuild.debian.archive import choose, resolve
from extsloader.imagebuild.debian.packages import format_lock
from extsloader.imagebuild.debian.recipe import Recipe, load_images, load_lock, load_recipe
from extsloader.imagebuild.linuxkit.definition import load_definition
from extsloader.imagebuild.oci.layout import write_image
from extsloader.imagebuild.plan import Cache
from extsloader.imagebuild.prepare import find_wheels, load_locks, prepare_rootfs
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
    """Say what the images of recipes, or all of a definition, are made of."""
    if args.recipe:
        recipes = [load_recipe(args.recipes / name) for name in args.recipe]
        name = "-".join(args.recipe)
        contents = _list_images(recipes, args)
    else:
        found, others = load_images(load_definition(*args.definition), args.recipes)
        name = args.definition[0].name.partition(".")[0]
        contents = _list_images(found.values(), args)
        locks = load_locks(args.images_lock)
        foreign = [Part(name=other, version=locks.get(other, "")) for other in others]
        contents |= {Part(name=name, version=__version__): [*contents, *foreign]}
    with whole_file(args.output) as unfinished:
        unfinished.write_bytes(make_sbom(name, contents, args.issued_at))


def _list_images(recipes: Iterable[Recipe], args: Namespace) -> dict[Part, list[Part]]:
    return {
        Part(name=f"extsloader/{recipe.name}:local", version=__version__): _list_parts(recipe, args)
        for recipe in recipes
    }


def _list_parts(recipe: Recipe, args: Namespace) -> list[Part]:
    cache = Cache(root=args.cache)
    debs = load_lock(recipe, args.arch)
    if args.allow_newer:
        apt = open_apt(args.arch, cache.root)
        debs, _ = choose(debs, cache.debs, recipe, apt, allow_newer=True)  # as a build does
    parts = name_debs(debs)
    if recipe.python and recipe.python.requirements:
        digests = {one.name: one.sha256 for one in find_wheels(recipe, debs, args, offline=True)}
        parts += name_requirements(Path(recipe.python.requirements).read_text(), digests)
    if recipe.python and recipe.python.project:
        url = f"pkg:generic/extsloader@{quote(__version__)}"
        parts.append(Part(name="extsloader", version=__version__, purl=url))
    return parts
