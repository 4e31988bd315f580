"""The command line of `mkext`. It loads nothing heavy before it knows what to do."""

import os
import platform
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from pathlib import Path
from time import time_ns

from extsloader import __version__
from extsloader.model.errors import ExtsloaderError, ImageRefusedError, MachineError, SettingsError

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

_EXIT_CODES = "exit codes: 0 done, 1 refused or failed, 2 wrong usage"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    args = make_parser().parse_args(argv)
    # pydantic, cryptography and PyYAML take 0.2 s to load, which --help need not wait for.
    from extsloader.imagebuild.verbs import VERBS  # noqa: PLC0415

    try:
        VERBS[args.verb](args)
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

    def add(name: str, text: str) -> ArgumentParser:
        return verbs.add_parser(name, help=text, description=text, epilog=_EXIT_CODES)

    build = add("build", "all of it: from an image definition to a signed image")
    _add_definition(build)
    build.add_argument("--out", type=Path, required=True, metavar="DIR")
    _add_keys(build)
    _add_identity(build)
    _add_level(build)
    _add_packages(build)
    _add_definition_verbs(add)
    _add_package_verbs(add)
    _add_image_verbs(add)
    return parser


def _add_definition_verbs(add: Callable[[str, str], ArgumentParser]) -> None:
    check = add("check", "check LinuxKit image definitions and name all that is wrong")
    check.add_argument("files", type=Path, nargs="+", metavar="FILE")

    oci = add("oci", "print what LinuxKit makes of the containers of an image definition, as JSON")
    _add_definition(oci)
    oci.add_argument(
        "--image-config", type=Path, metavar="FILE",
        help="JSON of an OCI image configuration, taken for each container's image",
    )  # fmt: skip
    oci.add_argument(
        "--label", type=Path, metavar="FILE",
        help="JSON of the label org.mobyproject.config, instead of the configuration's own",
    )  # fmt: skip


def _add_package_verbs(add: Callable[[str, str], ArgumentParser]) -> None:
    lock = add("lock", "resolve the packages of recipes and write their packages.lock")
    lock.add_argument("names", nargs="+", metavar="NAME")
    _add_recipes(lock)

    pkg = add("pkg", "make the root file systems of recipes from their locked packages")
    pkg.add_argument("names", nargs="+", metavar="NAME")
    _add_packages(pkg)

    tar = add("tar", "lay out the services of an image definition as LinuxKit does")
    _add_definition(tar)
    _add_output(tar, "OUT.tar")
    _add_packages(tar)


def _add_image_verbs(add: Callable[[str, str], ArgumentParser]) -> None:
    squash = add("squash", "make a squashfs of a tar file")
    squash.add_argument("tar", type=Path)
    _add_output(squash, "OUT.img")
    _add_level(squash)

    verity = add("verity", "append the dm-verity hash tree to a squashfs")
    verity.add_argument("image", type=Path)

    manifest = add("manifest", "write the manifest of an image with a hash tree")
    manifest.add_argument("image", type=Path)
    _add_definition(manifest)
    _add_output(manifest, "OUT.json")
    _add_identity(manifest)

    keygen = add("keygen", "make an Ed25519 key pair: NAME.key to sign with, NAME.pem for devices")
    keygen.add_argument("directory", type=Path)
    keygen.add_argument("--name", default="extsloader", help="default: %(default)s")

    sign = add("sign", "sign a manifest and append it to its image")
    sign.add_argument("image", type=Path)
    sign.add_argument("--manifest", type=Path, required=True, metavar="FILE")
    _add_keys(sign)


def _add_definition(parser: ArgumentParser) -> None:
    parser.add_argument("definition", type=Path, help="e.g. images/rootfs_pkgs.yml.in")


def _add_output(parser: ArgumentParser, name: str) -> None:
    parser.add_argument("-o", "--output", type=Path, required=True, metavar=name)


def _add_recipes(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--recipes", type=Path, default=Path("images/pkg"), metavar="DIR",
        help="holds NAME/recipe.yaml and NAME/packages.lock, default: %(default)s",
    )  # fmt: skip


def _add_packages(parser: ArgumentParser) -> None:
    _add_recipes(parser)
    parser.add_argument(
        "--cache", type=Path, default=Path(".cache"), metavar="DIR",
        help="keeps packages and finished steps, safe to delete, default: %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--allow-newer", action="store_true",
        help="take the archive's version, with a warning, where the locked one has vanished",
    )  # fmt: skip


def _add_level(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--level", type=int, choices=range(1, 23), default=3, metavar="N",
        help="Zstandard level, 1 to 22, default: %(default)s (9: 6 %% smaller, 3 times slower)",
    )  # fmt: skip


def _add_keys(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--key", type=Path, action="append", required=True, metavar="PRIV",
        help="private key, PEM; may be given more than once",
    )  # fmt: skip


def _add_identity(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("identity of the image").add_argument
    add("--manifests", type=Path, default=Path("manifests"), metavar="DIR",
        help="holds one YAML file a service, default: %(default)s")  # fmt: skip
    add("--name", default="rootfs-pkgs", help="default: %(default)s")
    add("--image-version", dest="version", default="0.0.0", metavar="TEXT")
    add("--sequence", type=int, default=1, metavar="N",
        help="of several images devices take the highest, default: %(default)s")  # fmt: skip
    add("--issued-at", type=int, default=_source_date(), metavar="SECONDS",
        help="since 1970, default: SOURCE_DATE_EPOCH, or else now")  # fmt: skip
    add("--expires", default="", metavar="YYYY-MM-DDThh:mm:ssZ")
    add("--arch", default=_ARCHITECTURES.get(platform.machine(), platform.machine()),
        help="default: this machine's, %(default)s")  # fmt: skip
    add(
        "--hypervisor",
        action="append",
        metavar="HV",
        help="default: kvm; may be given more than once",
    )
    add("--core-min", default="", metavar="VERSION")
    add("--core-max", default="", metavar="VERSION")
    add("--device-id", action="append", default=[], metavar="ID",
        help="only for these devices; may be given more than once")  # fmt: skip


def _source_date() -> int:
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    return int(text) if text.isdigit() else time_ns() // 10**9


if __name__ == "__main__":
    sys.exit(main())
