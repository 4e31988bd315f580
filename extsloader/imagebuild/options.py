"""Options that several verbs of `mkext` share. Loads nothing heavy."""

import os
import platform
from argparse import ArgumentParser
from pathlib import Path
from time import time_ns

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def add_definition(parser: ArgumentParser) -> None:
    """The image definition."""
    parser.add_argument("definition", type=Path, help="e.g. images/rootfs_pkgs.yml.in")


def add_output(parser: ArgumentParser, name: str) -> None:
    """The file to write."""
    parser.add_argument("-o", "--output", type=Path, required=True, metavar=name)


def add_recipes(parser: ArgumentParser) -> None:
    """Where recipes are."""
    parser.add_argument(
        "--recipes", type=Path, default=Path("images/pkg"), metavar="DIR",
        help="holds NAME/recipe.yaml and NAME/packages.lock, default: %(default)s",
    )  # fmt: skip


def add_packages(parser: ArgumentParser) -> None:
    """Where recipes and the cache are."""
    add_recipes(parser)
    parser.add_argument(
        "--cache", type=Path, default=Path(".cache"), metavar="DIR",
        help="keeps packages and finished steps, safe to delete, default: %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--allow-newer", action="store_true",
        help="take the archive's version, with a warning, where the locked one has vanished",
    )  # fmt: skip


def add_level(parser: ArgumentParser) -> None:
    """How hard to compress."""
    parser.add_argument(
        "--level", type=int, choices=range(1, 23), default=3, metavar="N",
        help="Zstandard level, 1 to 22, default: %(default)s (9: 6 %% smaller, 3 times slower)",
    )  # fmt: skip


def add_keys(parser: ArgumentParser) -> None:
    """The keys to sign with."""
    parser.add_argument(
        "--key", type=Path, action="append", required=True, metavar="PRIV",
        help="private key, PEM; may be given more than once",
    )  # fmt: skip


def add_identity(parser: ArgumentParser) -> None:
    """What the manifest says about the image as a whole."""
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
