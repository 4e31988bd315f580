"""The command line of `mkext`. It loads nothing heavy before it knows what to do."""

import os
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from extsloader import __version__
from extsloader.imagebuild.options import (
    add_definition,
    add_identity,
    add_keys,
    add_level,
    add_output,
    add_packages,
    add_recipes,
)
from extsloader.model.errors import ExtsloaderError, ImageRefusedError, MachineError, SettingsError

Add = Callable[[str, str, str], ArgumentParser]
"""Adds a verb: its area (a module of `extsloader.imagebuild.verbs`), name and one line about it."""

_EXIT_CODES = "exit codes: 0 done, 1 refused or failed, 2 wrong usage"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    args = make_parser().parse_args(argv)
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
        return verb

    build = add("building", "build", "all of it: from an image definition to a signed image")
    add_definition(build)
    build.add_argument("--out", type=Path, required=True, metavar="DIR")
    add_keys(build)
    add_identity(build)
    add_level(build)
    add_packages(build)
    _add_definition_verbs(add)
    _add_package_verbs(add)
    _add_image_verbs(add)
    return parser


def _add_definition_verbs(add: Add) -> None:
    check = add(
        "definitions", "check", "check LinuxKit image definitions and name all that is wrong"
    )
    check.add_argument("files", type=Path, nargs="+", metavar="FILE")

    oci = add(
        "definitions",
        "oci",
        "print what LinuxKit makes of a definition's containers, as JSON",
    )
    add_definition(oci)
    oci.add_argument(
        "--image-config", type=Path, metavar="FILE",
        help="JSON of an OCI image configuration, taken for each container's image",
    )  # fmt: skip
    oci.add_argument(
        "--label", type=Path, metavar="FILE",
        help="JSON of the label org.mobyproject.config, instead of the configuration's own",
    )  # fmt: skip


def _add_package_verbs(add: Add) -> None:
    lock = add("packages", "lock", "resolve the packages of recipes and write their packages.lock")
    lock.add_argument("names", nargs="+", metavar="NAME")
    add_recipes(lock)

    pkg = add("packages", "pkg", "make the root file systems of recipes from their locked packages")
    pkg.add_argument("names", nargs="+", metavar="NAME")
    add_packages(pkg)

    tar = add("building", "tar", "lay out the services of an image definition as LinuxKit does")
    add_definition(tar)
    add_output(tar, "OUT.tar")
    add_packages(tar)


def _add_image_verbs(add: Add) -> None:
    squash = add("building", "squash", "make a squashfs of a tar file")
    squash.add_argument("tar", type=Path)
    add_output(squash, "OUT.img")
    add_level(squash)

    verity = add("building", "verity", "append the dm-verity hash tree to a squashfs")
    verity.add_argument("image", type=Path)

    manifest = add("building", "manifest", "write the manifest of an image with a hash tree")
    manifest.add_argument("image", type=Path)
    add_definition(manifest)
    add_output(manifest, "OUT.json")
    add_identity(manifest)

    keygen = add(
        "building",
        "keygen",
        "make a key pair: NAME.key to sign with, NAME.pem for devices",
    )
    keygen.add_argument("directory", type=Path)
    keygen.add_argument("--name", default="extsloader", help="default: %(default)s")

    sign = add("building", "sign", "sign a manifest and append it to its image")
    sign.add_argument("image", type=Path)
    sign.add_argument("--manifest", type=Path, required=True, metavar="FILE")
    add_keys(sign)


if __name__ == "__main__":
    sys.exit(main())
