"""The command line of `mkext`. It loads nothing heavy before it knows what to do."""

import os
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from extsloader import __version__
from extsloader.imagebuild.options import (
    add_architecture,
    add_cache,
    add_compression,
    add_definition,
    add_disk,
    add_files,
    add_identity,
    add_images,
    add_keys,
    add_limit,
    add_output,
    add_packages,
    add_recipes,
    add_target,
    add_time,
)
from extsloader.imagebuild.steps import PROGRESS
from extsloader.model.errors import ExtsloaderError, ImageRefusedError, MachineError, SettingsError

Add = Callable[[str, str, str], ArgumentParser]
"""Adds a verb: its area (a module of `extsloader.imagebuild.verbs`), name and one line about it."""

VIA = ("vvfat", "virtio", "usb", "partition")
"""The roads of `extsloader.imagebuild.disk.qemu`, which need not be loaded to parse."""

_EXIT_CODES = "exit codes: 0 done, 1 refused or failed, 2 wrong usage"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    args = make_parser().parse_args(argv)
    PROGRESS.set(args.progress and sys.stdout.isatty())
    try:
        # pydantic, cryptography and PyYAML take 0.2 s to load, which --help need not wait for.
        area = import_module(f"extsloader.imagebuild.verbs.{args.area}")
        getattr(area, args.verb)(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (`| head`) has seen enough. Python's own flush at exit must not fail either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ExtsloaderError, OSError) as error:
        for line in _explain(error):
            print(f"mkext: {line}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as shells do; what is finished is kept for the next build
    return 0


def _explain(error: ExtsloaderError | OSError) -> list[str]:
    match error:
        case SettingsError():
            return list(error.problems)
        case MachineError() | ImageRefusedError():
            hint = [f"hint: {error.problem.hint}"] if error.problem.hint else []
            return [str(error.problem), *hint]
        case OSError(filename=name, strerror=str(reason)):
            return [f"cannot use {name}: {reason.lower()}"]
        case _:
            return [str(error)]


def make_parser() -> ArgumentParser:
    """All verbs with their options."""
    parser = ArgumentParser(
        prog="mkext", description="Build a signed pkgs image.", epilog=_EXIT_CODES
    )
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def add(area: str, name: str, text: str) -> ArgumentParser:
        verb = verbs.add_parser(name, help=text, description=text, epilog=_EXIT_CODES)
        verb.set_defaults(area=area)
        verb.add_argument(
            "--progress", action="store_true", help="on a terminal, show how long a step runs"
        )
        return verb

    build = add("building", "build", "all of it: from an image definition to a signed image")
    add_definition(build)
    build.set_defaults(files=Path())
    build.add_argument("--out", type=Path, required=True, metavar="DIR")
    add_keys(build)
    add_identity(build)
    add_compression(build)
    add_packages(build)
    _add_definition_verbs(add)
    _add_package_verbs(add)
    _add_image_verbs(add)
    _add_disk_verbs(add)
    _add_machine_verbs(add)
    return parser


def _add_definition_verbs(add: Add) -> None:
    check = add(
        "definitions", "check", "check LinuxKit image definitions and name all that is wrong"
    )
    check.add_argument("files", type=Path, nargs="+", metavar="FILE")

    render = add("definitions", "render", "make an image definition of a template, as EVE does")
    add_definition(render)
    add_output(render, "OUT.yml")
    add_target(render)
    add_recipes(render)

    oci = add(
        "definitions",
        "oci",
        "print what LinuxKit makes of a definition's containers, as JSON",
    )
    add_definition(oci, several=True)
    oci.add_argument(
        "--image-config", type=Path, metavar="FILE",
        help="JSON of an OCI image configuration, taken for each container's image",
    )  # fmt: skip
    oci.add_argument(
        "--label", type=Path, metavar="FILE",
        help="JSON of the label org.mobyproject.config, instead of the configuration's own",
    )  # fmt: skip


def _add_package_verbs(add: Add) -> None:
    pull = add("images", "pull", "bring container images into the cache, and say their digests")
    pull.add_argument(
        "references", nargs="+", metavar="IMAGE",
        help="NAME, docker://NAME, oci:DIR[:NAME], oci-archive:FILE or docker-archive:FILE",
    )  # fmt: skip
    pull.add_argument("--update", action="store_true", help="write the digests to the lock file")
    add_images(pull)
    add_architecture(pull)
    add_cache(pull)

    lock = add("packages", "lock", "resolve the packages of recipes and write their packages.lock")
    lock.add_argument("names", nargs="+", metavar="NAME")
    add_recipes(lock)
    add_architecture(lock)
    add_cache(lock)

    pkg = add("packages", "pkg", "make the root file systems of recipes from their locked packages")
    pkg.add_argument("names", nargs="+", metavar="NAME")
    pkg.add_argument("--oci", type=Path, metavar="DIR", help="an OCI layout to write them to, too")
    add_packages(pkg)

    sbom = add("packages", "sbom", "say what images are made of, as SPDX, from the lock files")
    about = sbom.add_mutually_exclusive_group(required=True)
    about.add_argument("definition", type=Path, nargs="*", default=[], metavar="DEFINITION",
        help="an image definition, more are appended to the first")  # fmt: skip
    about.add_argument("--recipe", action="append", metavar="NAME",
        help="instead: the image of this recipe; may be repeated")  # fmt: skip
    add_output(sbom, "OUT.spdx.json")
    add_packages(sbom)
    add_time(sbom)

    tar = add("building", "tar", "lay out all of an image definition as LinuxKit does")
    add_definition(tar, several=True)
    add_files(tar)
    add_output(tar, "OUT.tar")
    add_packages(tar)


def _add_image_verbs(add: Add) -> None:
    squash = add("building", "squash", "make a squashfs of a tar file")
    squash.add_argument("tar", type=Path)
    add_output(squash, "OUT.img")
    add_compression(squash)
    add_limit(squash, "0")
    squash.add_argument(
        "--format", choices=("squashfs", "erofs"), default="squashfs",
        help="default: %(default)s; erofs compresses with lz4hc, whatever else is asked for",
    )  # fmt: skip

    verity = add("building", "verity", "append the dm-verity hash tree to a squashfs")
    verity.add_argument("image", type=Path)

    manifest = add("building", "manifest", "write the manifest of an image with a hash tree")
    manifest.add_argument("image", type=Path)
    add_definition(manifest)
    add_output(manifest, "OUT.json")
    add_identity(manifest)
    add_architecture(manifest)

    keygen = add(
        "building",
        "keygen",
        "make a key pair: NAME.key to sign with, NAME.pem for devices",
    )
    keygen.add_argument("directory", type=Path)
    keygen.add_argument("--name", default="extsloader", help="default: %(default)s")

    sign = add("building", "sign", "sign a manifest and append it to its image")
    sign.add_argument("image", type=Path)
    sign.add_argument(
        "--manifest",
        type=Path,
        metavar="FILE",
        help="default: the one that the image carries, whose signatures stay",
    )
    add_keys(sign)


def _add_disk_verbs(add: Add) -> None:
    size = add("disk", "size", "say what is big in a tar file")
    size.add_argument("tar", type=Path)
    size.add_argument("--top", type=int, default=20, metavar="N", help="default: %(default)s")

    disk = add("disk", "disk", "make a bootable disk of a root file system")
    disk.add_argument("tar", type=Path, help="the root file system, for what boots")
    disk.add_argument("--rootfs", type=Path, required=True, metavar="IMG",
        help="the same as squashfs")  # fmt: skip
    add_output(disk, "OUT.qcow2")
    disk.add_argument("--raw", action="store_true", help="no qcow2, but the bytes of the disk")
    disk.add_argument("--pkgs", type=Path, metavar="IMG", help="a pkgs image for a partition PKGS")
    add_architecture(disk)
    add_disk(disk)

    bootstrap = add("disk", "bootstrap", "all of it: from image definitions to a bootable disk")
    add_definition(bootstrap, several=True)
    bootstrap.add_argument("--out", type=Path, required=True, metavar="DIR")
    bootstrap.add_argument("--no-disk", action="store_true", help="only the squashfs")
    add_files(bootstrap)
    add_compression(bootstrap)
    add_limit(bootstrap, "300M")
    add_packages(bootstrap)
    add_disk(bootstrap)


def _add_machine_verbs(add: Add) -> None:
    run = add("machine", "run", "boot a disk in QEMU, its console on the terminal")
    run.add_argument("disk", type=Path, metavar="DISK.qcow2", help="never written without --write")
    add_architecture(run)
    run.add_argument("--pkgs", type=Path, metavar="IMG", help="the pkgs image to be found")
    run.add_argument("--via", choices=VIA, default=VIA[0], help="how it gets there: %(choices)s")
    run.add_argument("--conf", type=Path, metavar="DIR", help="files for the partition CONFIG")
    run.add_argument("--persist", type=Path, metavar="FILE",
        help="a disk for /persist that outlives the machine, made where missing")  # fmt: skip
    run.add_argument("--memory", type=int, default=1024, metavar="MIB", help="default: %(default)s")
    run.add_argument("--cpus", type=int, default=2, metavar="N", help="default: %(default)s")
    run.add_argument("--append", default="", metavar="WORDS",
        help="more words on the kernel's command line; boots without the firmware")  # fmt: skip
    run.add_argument("--write", action="store_true", help="keep on the disk what is written to it")


if __name__ == "__main__":
    sys.exit(main())
