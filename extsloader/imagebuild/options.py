"""Options that several verbs of `mkext` share. Loads nothing heavy."""

import os
from argparse import ArgumentParser
from pathlib import Path
from time import time_ns

from extsloader.imagebuild.sizes import parse_size
from extsloader.imagebuild.tools import ARCHITECTURE


def add_definition(parser: ArgumentParser, *, several: bool = False) -> None:
    """The image definition, always a list of files."""
    parser.add_argument(
        "definition", type=Path, nargs="+" if several else 1, metavar="DEFINITION",
        help="e.g. images/rootfs_pkgs.yml.in"
        + (", more are appended to the first" if several else ""),
    )  # fmt: skip


def add_files(parser: ArgumentParser) -> None:
    """Where the sources of `files` are."""
    parser.add_argument(
        "--files", type=Path, default=Path(), metavar="DIR",
        help="where `source` of `files` is, default: here",
    )  # fmt: skip


def add_target(parser: ArgumentParser) -> None:
    """What to render a template for."""
    add = parser.add_argument
    add("--hv", choices=("kvm", "xen", "k", "mini"), default="kvm", help="default: %(default)s")
    add("--platform", default="generic", metavar="NAME", help="default: %(default)s")
    add("--version", default="", metavar="TEXT", help="EVE's, whose end chooses pillar's variant")
    add("--tag", action="append", default=[], metavar="NAME_TAG=REF",
        help="the image for a placeholder, else a recipe's; may be repeated")  # fmt: skip
    add("--tags", type=Path, metavar="FILE", help="a line NAME_TAG=REF for each placeholder")
    add("--modifiers", type=Path, metavar="DIR",
        help="holds hv/HV.yq and platform/NAME/NAME.yq, applied by mikefarah's yq 4")  # fmt: skip


def add_output(parser: ArgumentParser, name: str) -> None:
    """The file to write."""
    parser.add_argument("-o", "--output", type=Path, required=True, metavar=name)


def add_recipes(parser: ArgumentParser) -> None:
    """Where recipes are."""
    parser.add_argument(
        "--recipes", type=Path, default=Path("images/pkg"), metavar="DIR",
        help="holds NAME/recipe.yaml and NAME/packages.lock, default: %(default)s",
    )  # fmt: skip


def add_architecture(parser: ArgumentParser) -> None:
    """The devices' architecture."""
    parser.add_argument(
        "--arch", default=ARCHITECTURE, help="Debian's name, default: this machine's, %(default)s"
    )


def add_cache(parser: ArgumentParser) -> None:
    """Where the cache is."""
    parser.add_argument(
        "--cache", type=Path, default=Path(".cache"), metavar="DIR",
        help="keeps packages and finished steps, safe to delete, default: %(default)s",
    )  # fmt: skip


def add_packages(parser: ArgumentParser) -> None:
    """Where recipes and the cache are."""
    add_recipes(parser)
    add_images(parser)
    add_architecture(parser)
    add_cache(parser)
    parser.add_argument(
        "--allow-newer", action="store_true",
        help="take the archive's version, with a warning, where the locked one has vanished",
    )  # fmt: skip


def add_images(parser: ArgumentParser) -> None:
    """Where images are that no recipe makes."""
    add = parser.add_argument
    add("--images", type=Path, action="append", default=[], metavar="DIR",
        help="an OCI layout that has images by name; may be repeated")  # fmt: skip
    add("--images-lock", type=Path, default=Path("images/images.lock"), metavar="FILE",
        help="digests of images, default: %(default)s")  # fmt: skip
    add("--registry", default="", metavar="HOST/PATH",
        help="goes before names of images that say no transport")  # fmt: skip
    add("--insecure-registry", action="store_true", help="the registry speaks plain HTTP")


def add_compression(parser: ArgumentParser) -> None:
    """How to compress."""
    parser.add_argument(
        "--compression", choices=("zstd", "xz"), default="zstd",
        help="default: %(default)s; xz for boot loaders that read nothing newer",
    )  # fmt: skip
    parser.add_argument(
        "--level", type=int, choices=range(1, 23), default=3, metavar="N",
        help="Zstandard level, 1 to 22, default: %(default)s (9: 6 %% smaller, 3 times slower)",
    )  # fmt: skip
    parser.add_argument(
        "--block-size", type=parse_size, default="128K", metavar="SIZE",
        help="what is compressed together, 4K to 1M, default: %(default)s",
    )  # fmt: skip


def add_limit(parser: ArgumentParser, default: str) -> None:
    """How large the squashfs may get."""
    parser.add_argument(
        "--limit", type=parse_size, default=default, metavar="SIZE",
        help="fail, and say what is big, if the squashfs gets larger; such as 300M; 0: no limit",
    )  # fmt: skip


def add_disk(parser: ArgumentParser) -> None:
    """What the bootable disk holds besides the image."""
    add = parser.add_argument
    add("--hv", choices=("kvm", "xen", "k", "mini"), default="kvm", help="default: %(default)s")
    add("--conf", type=Path, metavar="DIR", help="files for the partition CONFIG")
    add("--cmdline-add", default="", metavar="WORDS", help="more for the kernel's command line")
    for name, default in (("efi", "64M"), ("imga", "300M"), ("persist", "0")):
        add(f"--size-{name}", type=parse_size, default=default, metavar="SIZE",
            help="default: %(default)s")  # fmt: skip


def add_keys(parser: ArgumentParser) -> None:
    """The keys to sign with."""
    parser.add_argument(
        "--key", type=Path, action="append", required=True, metavar="PRIV",
        help="private key, PEM; may be given more than once",
    )  # fmt: skip


def add_time(parser: ArgumentParser) -> None:
    """What time a document says it is from."""
    parser.add_argument(
        "--issued-at", type=int, default=_source_date(), metavar="SECONDS",
        help="since 1970, default: SOURCE_DATE_EPOCH, or else now",
    )  # fmt: skip


def add_identity(parser: ArgumentParser) -> None:
    """What the manifest says about the image as a whole."""
    add = parser.add_argument_group("identity of the image").add_argument
    add("--manifests", type=Path, default=Path("manifests"), metavar="DIR",
        help="holds one YAML file a service, default: %(default)s")  # fmt: skip
    add("--name", default="rootfs-pkgs", help="default: %(default)s")
    add("--image-version", dest="version", default="0.0.0", metavar="TEXT")
    add(
        "--sequence",
        type=int,
        metavar="N",
        help="a device takes the highest; default: the minute of the issue, since 1970",
    )
    add_time(parser)
    add("--expires", default="", metavar="YYYY-MM-DDThh:mm:ssZ")
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
