"""What each verb of `mkext` does; `extsloader.imagebuild.main` parses the command line."""

import shutil
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence

from extsloader.image.schema import parse_manifest
from extsloader.image.signing import load_private_key
from extsloader.imagebuild.archive import choose, fetch, resolve
from extsloader.imagebuild.definition import Definition, load_definition
from extsloader.imagebuild.describe import describe_containers, load_image_config, to_line
from extsloader.imagebuild.image import add_verity, measure_image, sign_image
from extsloader.imagebuild.keys import make_keys
from extsloader.imagebuild.layout import check_buildable
from extsloader.imagebuild.manifest import PLACEHOLDER, Identity, load_services, make_manifest
from extsloader.imagebuild.packages import Deb, format_lock
from extsloader.imagebuild.plan import Cache, plan_layout, plan_rootfs, plan_squashfs
from extsloader.imagebuild.recipe import Recipe, load_images, load_lock, load_recipe
from extsloader.imagebuild.squashfs import squash_tar
from extsloader.imagebuild.steps import Step, run_steps, timed
from extsloader.model.errors import SettingsError
from extsloader.model.manifest import Compatible, ImageSpec


def check(args: Namespace) -> None:
    """Say of every definition that it is good, or else all that is wrong."""
    problems: list[str] = []
    for path in args.files:
        try:
            load_definition(path)
        except SettingsError as error:
            problems += error.problems
        else:
            print(f"{path}: ok")
    if problems:
        raise SettingsError(tuple(problems))


def oci(args: Namespace) -> None:
    """Print the OCI specification and the runtime part of every container of a definition."""
    definition = load_definition(args.definition)
    image = load_image_config(args.image_config, args.label)
    print(to_line(describe_containers(definition, image, str(args.definition))))


def lock(args: Namespace) -> None:
    """Resolve recipes anew and write their lock files."""
    for name in args.names:
        recipe = load_recipe(args.recipes / name)
        debs = resolve(recipe)
        recipe.lock_file.write_text(format_lock(name, debs))
        print(f"{recipe.lock_file}: {len(debs)} packages")


def pkg(args: Namespace) -> None:
    """Make the root file systems of recipes."""
    recipes = [load_recipe(args.recipes / name) for name in args.names]
    with Cache(root=args.cache).locked():
        steps = _prepare_rootfs(recipes, args)
        run_steps(steps)
    for step in steps:
        print(step.output)


def tar(args: Namespace) -> None:
    """Lay out a definition's services as a tar file."""
    definition = _load_buildable(args)
    with Cache(root=args.cache).locked():
        steps = _prepare_layout(definition, args)
        run_steps(steps)
        shutil.copyfile(steps[-1].output, args.output)


def squash(args: Namespace) -> None:
    """Make a squashfs of a tar file."""
    args.output.unlink(missing_ok=True)
    with timed("squashfs"):
        squash_tar(args.tar, args.output, level=args.level)


def verity(args: Namespace) -> None:
    """Append the hash tree."""
    with timed("hash tree"):
        add_verity(args.image)
    print(f"root hash {measure_image(args.image).verity.root_hash}")


def manifest(args: Namespace) -> None:
    """Make the manifest of an image with a hash tree."""
    services = _load_buildable(args).services
    payload = _make_manifest(measure_image(args.image), [s.name for s in services], args)
    args.output.write_bytes(payload)


def keygen(args: Namespace) -> None:
    """Make a key pair."""
    for path in make_keys(args.directory, args.name):
        print(path)


def sign(args: Namespace) -> None:
    """Sign a manifest and append it to its image."""
    keys = [load_private_key(str(path)) for path in args.key]
    payload = args.manifest.read_bytes()
    if parse_manifest(payload).image != measure_image(args.image):
        raise SettingsError((f"cannot sign {args.manifest}: it describes another image",))
    with timed("signature"):
        sign_image(args.image, payload, keys)


def build(args: Namespace) -> None:
    """All of it; mistakes in the input files come to light before anything is downloaded."""
    keys = [load_private_key(str(path)) for path in args.key]
    definition = _load_buildable(args)
    names = [entry.name for entry in definition.services]
    _make_manifest(PLACEHOLDER, names, args)
    args.out.mkdir(parents=True, exist_ok=True)
    image = args.out / f"{args.name}.img"
    unfinished = image.with_name(f".{image.name}.unfinished")
    with Cache(root=args.cache).locked():
        steps = _prepare_layout(definition, args)
        steps.append(plan_squashfs(steps[-1], args.level))
        run_steps(steps)
        shutil.copyfile(steps[-1].output, unfinished)
    with timed("hash tree"):
        add_verity(unfinished)
    payload = _make_manifest(measure_image(unfinished), names, args)
    with timed("signature"):
        sign_image(unfinished, payload, keys)
    unfinished.replace(image)
    print(f"{image}: {image.stat().st_size / 1e6:.1f} MB")


VERBS: Mapping[str, Callable[[Namespace], None]] = {
    verb.__name__: verb
    for verb in (check, oci, lock, pkg, tar, squash, verity, manifest, keygen, sign, build)
}


def _load_buildable(args: Namespace) -> Definition:
    definition = load_definition(args.definition)
    check_buildable(definition, str(args.definition))
    return definition


def _prepare_layout(definition: Definition, args: Namespace) -> list[Step]:
    """Steps up to the layout, with all packages fetched that they need."""
    recipes = load_images(definition, args.recipes)
    rootfs = dict(zip(recipes, _prepare_rootfs(list(recipes.values()), args), strict=True))
    cache = Cache(root=args.cache)
    layout = plan_layout(definition, recipes, rootfs, cache, args.definition)
    return [*rootfs.values(), layout]


def _prepare_rootfs(recipes: Sequence[Recipe], args: Namespace) -> list[Step]:
    cache = Cache(root=args.cache)
    steps: list[Step] = []
    wanted: set[Deb] = set()
    newer: dict[str, tuple[Deb, ...]] = {}
    for recipe in recipes:
        debs = load_lock(recipe)
        step = plan_rootfs(recipe, debs, cache)
        if not step.output.exists():
            debs, replaced = choose(debs, cache.debs, recipe.name, allow_newer=args.allow_newer)
            newer |= {recipe.name: replaced} if replaced else {}
            step = plan_rootfs(recipe, debs, cache)
            wanted |= set() if step.output.exists() else set(debs)
        steps.append(step)
    _warn_newer(newer)
    if missing := [deb for deb in sorted(wanted) if not (cache.debs / deb.file_name).exists()]:
        with timed(f"fetch {len(missing)} packages"):
            fetch(missing, cache.debs)
    return steps


def _warn_newer(newer: Mapping[str, tuple[Deb, ...]]) -> None:
    if newer:
        taken = sorted({f"{deb.package} {deb.version}" for debs in newer.values() for deb in debs})
        print(
            "mkext: warning: the archive no longer has what is locked, took "
            f"{', '.join(taken)}; run `mkext lock {' '.join(newer)}`",
            file=sys.stderr,
        )


def _make_manifest(image: ImageSpec, names: Sequence[str], args: Namespace) -> bytes:
    identity = Identity(
        name=args.name,
        version=args.version,
        sequence=args.sequence,
        issued_at=args.issued_at,
        expires=args.expires,
        compatible=Compatible(
            arch=args.arch,
            hypervisors=tuple(args.hypervisor or ("kvm",)),
            core_min=args.core_min,
            core_max=args.core_max,
            device_ids=tuple(args.device_id),
        ),
    )
    services, problems = load_services(args.manifests, names)
    return make_manifest(image, services, identity, problems)
