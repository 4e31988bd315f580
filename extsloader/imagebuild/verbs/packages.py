"""Verbs about recipes and their packages."""

from argparse import Namespace

from extsloader.imagebuild.debian.archive import resolve
from extsloader.imagebuild.debian.packages import format_lock
from extsloader.imagebuild.debian.recipe import load_recipe
from extsloader.imagebuild.oci.layout import write_image
from extsloader.imagebuild.plan import Cache
from extsloader.imagebuild.prepare import prepare_rootfs
from extsloader.imagebuild.steps import run_steps


def lock(args: Namespace) -> None:
    """Resolve recipes anew and write their lock files."""
    for name in args.names:
        recipe = load_recipe(args.recipes / name)
        debs = resolve(recipe)
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
