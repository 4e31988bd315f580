"""Verbs that make an image, each step alone and all of them."""

import shutil
from argparse import Namespace
from collections.abc import Sequence

from extsloader.image.schema import parse_manifest
from extsloader.image.signing import load_private_key
from extsloader.imagebuild.erofs import make_erofs
from extsloader.imagebuild.image import add_verity, measure_image, read_signed, sign_image
from extsloader.imagebuild.keys import make_keys
from extsloader.imagebuild.linuxkit.definition import Definition, load_definition
from extsloader.imagebuild.linuxkit.layout import check_buildable
from extsloader.imagebuild.manifest import PLACEHOLDER, Identity, load_services, make_manifest
from extsloader.imagebuild.plan import Cache, plan_squashfs
from extsloader.imagebuild.prepare import prepare_layout
from extsloader.imagebuild.sizes import check_limit
from extsloader.imagebuild.squashfs import Compression, squash_tar
from extsloader.imagebuild.steps import run_steps, timed, whole_file
from extsloader.model.errors import SettingsError
from extsloader.model.manifest import Compatible, ImageSpec


def tar(args: Namespace) -> None:
    """Lay out a definition as a tar file."""
    definition = load_definition(*args.definition)
    with Cache(root=args.cache).locked():
        steps = prepare_layout(definition, args)
        run_steps(steps)
        with whole_file(args.output) as unfinished:
            shutil.copyfile(steps[-1].output, unfinished)


def squash(args: Namespace) -> None:
    """Make a squashfs, or an erofs, of a tar file."""
    with timed(args.format), whole_file(args.output) as unfinished:
        if args.format == "erofs":
            make_erofs(args.tar, unfinished)
        else:
            squash_tar(args.tar, unfinished, compression(args))
        check_limit(unfinished, args.limit, args.tar)


def compression(args: Namespace) -> Compression:
    """How to compress; EVE filters machine code of both its architectures for xz."""
    if args.compression == "xz":
        return Compression(kind="xz", filters="x86,arm", block=args.block_size)
    return Compression(level=args.level, block=args.block_size)


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
    """Sign a manifest and append it to its image, or add signatures to the one that is there."""
    keys = [load_private_key(str(path)) for path in args.key]
    payload, others = (args.manifest.read_bytes(), ()) if args.manifest else read_signed(args.image)
    if parse_manifest(payload).image != measure_image(args.image):
        raise SettingsError(
            (f"cannot sign {args.manifest or args.image}: the manifest describes another image",)
        )
    with timed("signature"):
        sign_image(args.image, payload, keys, others)


def build(args: Namespace) -> None:
    """All of it; mistakes in the input files come to light before anything is downloaded."""
    keys = [load_private_key(str(path)) for path in args.key]
    definition = _load_buildable(args)
    names = [entry.name for entry in definition.services]
    _make_manifest(PLACEHOLDER, names, args)
    args.out.mkdir(parents=True, exist_ok=True)
    image = args.out / f"{args.name}.img"
    with whole_file(image) as unfinished:
        with Cache(root=args.cache).locked():
            steps = prepare_layout(definition, args)
            steps.append(plan_squashfs(steps[-1], compression(args)))
            run_steps(steps)
            shutil.copyfile(steps[-1].output, unfinished)
        with timed("hash tree"):
            add_verity(unfinished)
        payload = _make_manifest(measure_image(unfinished), names, args)
        with timed("signature"):
            sign_image(unfinished, payload, keys)
    print(f"{image}: {image.stat().st_size / 1e6:.1f} MB")


def _load_buildable(args: Namespace) -> Definition:
    definition = load_definition(*args.definition)
    check_buildable(definition, str(args.definition[0]))
    return definition


def _make_manifest(image: ImageSpec, names: Sequence[str], args: Namespace) -> bytes:
    identity = Identity(
        name=args.name,
        version=args.version,
        sequence=args.issued_at // 60 if args.sequence is None else args.sequence,
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
