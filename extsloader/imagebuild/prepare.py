"""Everything that a build needs from outside, fetched before its first step."""

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

from extsloader.imagebuild.debian.apt import open_apt
from extsloader.imagebuild.debian.archive import choose, fetch
from extsloader.imagebuild.debian.packages import Deb
from extsloader.imagebuild.debian.recipe import Recipe, load_images, load_lock
from extsloader.imagebuild.debian.rootfs import Ingredients
from extsloader.imagebuild.debian.wheels import Wheel, build_project, fetch_wheels, find_target
from extsloader.imagebuild.linuxkit.definition import Definition
from extsloader.imagebuild.linuxkit.spec import ImageConfig
from extsloader.imagebuild.oci.references import Places, get_images, parse_locks, split_pinned
from extsloader.imagebuild.plan import Cache, Image, plan_flat, plan_layout, plan_rootfs
from extsloader.imagebuild.steps import Step, timed


def prepare_layout(definition: Definition, args: Namespace) -> list[Step]:
    """Steps up to the layout, with everything fetched that they need."""
    recipes, others = load_images(definition, args.recipes)
    images = prepare_others(others, args)
    rootfs = prepare_rootfs(list(recipes.values()), args)
    images |= {
        reference: Image(config=ImageConfig(label=recipe.config), rootfs=step)
        for (reference, recipe), step in zip(recipes.items(), rootfs, strict=True)
    }
    cache = Cache(root=args.cache)
    layout = plan_layout(definition, images, cache, args.definition, args.files)
    return [*(image.rootfs for image in images.values()), layout]


def prepare_others(references: Sequence[str], args: Namespace) -> dict[str, Image]:
    """Images that no recipe makes, from local layouts or by skopeo. Raises SettingsError."""
    locks = load_locks(args.images_lock)
    unlocked = [name for name in references if name not in locks and not split_pinned(name)[1]]
    if unlocked:
        print(
            f"mkext: warning: not locked: {', '.join(unlocked)}; run `mkext pull --update`",
            file=sys.stderr,
        )
    found = get_images(references, find_places(args), locks)
    cache = Cache(root=args.cache)
    return {
        reference: Image(config=stored.config, rootfs=plan_flat(reference, stored, cache))
        for reference, stored in found.items()
    }


def load_locks(path: Path) -> dict[str, str]:
    """The locked digests of images; none without a file. Raises SettingsError."""
    return parse_locks(path.read_text(), str(path)) if path.exists() else {}


def find_places(args: Namespace) -> Places:
    """Where images are looked for."""
    return Places(
        cache=Cache(root=args.cache).images,
        layouts=tuple(args.images),
        registry=args.registry,
        insecure=args.insecure_registry,
        architecture=args.arch,
    )


def prepare_rootfs(recipes: Sequence[Recipe], args: Namespace) -> list[Step]:
    """Steps up to the root file systems of recipes, with all archives fetched that they need."""
    cache = Cache(root=args.cache)
    steps: list[Step] = []
    wanted: set[Deb] = set()
    newer: dict[str, tuple[Deb, ...]] = {}
    for recipe in recipes:
        debs = load_lock(recipe, args.arch)
        step = plan_rootfs(recipe, _gather(recipe, debs, args), cache)
        if not step.output.exists():
            apt = open_apt(args.arch, cache.root)
            allowed = args.allow_newer
            debs, replaced = choose(debs, cache.debs, recipe, apt, allow_newer=allowed)
            if replaced:
                newer[recipe.name] = replaced
                step = plan_rootfs(recipe, _gather(recipe, debs, args), cache)
            wanted |= set() if step.output.exists() else set(debs)
        steps.append(step)
    _warn_newer(newer)
    if missing := [deb for deb in sorted(wanted) if not (cache.debs / deb.file_name).exists()]:
        with timed(f"fetch {len(missing)} packages"):
            fetch(missing, cache.debs, open_apt(args.arch, cache.root))
    return steps


def _gather(recipe: Recipe, debs: tuple[Deb, ...], args: Namespace) -> Ingredients:
    found = find_wheels(recipe, debs, args)
    if recipe.python and recipe.python.project:
        found += (build_project(Path(), Cache(root=args.cache).wheels),)
    return Ingredients(architecture=args.arch, debs=debs, wheels=found)


def find_wheels(
    recipe: Recipe, debs: Sequence[Deb], args: Namespace, *, offline: bool = False
) -> tuple[Wheel, ...]:
    """What a recipe's requirements name; `offline`: only what the cache has."""
    if not (recipe.python and recipe.python.requirements):
        return ()
    path, target = Path(recipe.python.requirements), find_target(debs, args.arch)
    wheels = Cache(root=args.cache).wheels
    return fetch_wheels(path, recipe.python.sources, target, wheels, offline=offline)


def _warn_newer(newer: Mapping[str, tuple[Deb, ...]]) -> None:
    if newer:
        taken = sorted({f"{deb.package} {deb.version}" for debs in newer.values() for deb in debs})
        print(
            "mkext: warning: the archive no longer has what is locked, took "
            f"{', '.join(taken)}; run `mkext lock {' '.join(newer)}`",
            file=sys.stderr,
        )
