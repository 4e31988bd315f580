"""How LinuxKit lays out a whole image, as a pure plan of files."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from extsloader.imagebuild.linuxkit.bundles import VOLUMES, Bundle
from extsloader.imagebuild.linuxkit.definition import Definition, Volume
from extsloader.imagebuild.linuxkit.kernel import lay_out_kernel
from extsloader.imagebuild.squashfs import EPOCH
from extsloader.imagebuild.tree import (
    DIRECTORY,
    Kind,
    Node,
    Tree,
    check_parents,
    copy,
    move,
    prune,
    put_over,
    read_content,
)
from extsloader.model.errors import SettingsError

_DROPPED = (
    ".dockerenv", "Dockerfile", "dev/console", "dev/pts", "dev/shm", "etc/hostname",
)  # fmt: skip
_HOSTS = b"""\
127.0.0.1       localhost
::1     localhost ip6-localhost ip6-loopback
fe00::0 ip6-localnet
ff00::0 ip6-mcastprefix
ff02::1 ip6-allnodes
ff02::2 ip6-allrouters
"""
_ALWAYS_MADE: Tree = {
    **dict.fromkeys(("dev", "dev/pts", "dev/shm", "etc", "proc", "sys"), DIRECTORY),
    "etc/hosts": Node(kind=Kind.FILE, mode=0o644, content=_HOSTS),
}
_MTAB = Node(kind=Kind.LINK, target="/proc/mounts")
_RESOLV_FILE = Node(kind=Kind.FILE, mode=0o644, content=b"\n# no resolv.conf configured\n")
_RESOLV_LINK = Node(kind=Kind.LINK, mode=0o644, target="/run/resolvconf/resolv.conf")
"""The root and volumes may be read-only; /run never is."""

_APK = "lib/apk/db/installed"
"""What Alpine's package manager has installed."""


def check_buildable(definition: Definition, where: str) -> None:
    """Refuse what a pkgs image cannot hold: it is mounted, never booted. Raises SettingsError."""
    unsupported = {
        "kernel": definition.kernel, "init": definition.init, "onboot": definition.onboot,
        "onshutdown": definition.onshutdown, "files": definition.files,
        "volumes": definition.volumes,
    }  # fmt: skip
    problems = [
        f"{where}: {section}: not supported in a pkgs image, which is never booted: leave it out"
        for section, content in unsupported.items()
        if content
    ]
    problems += [] if definition.services else [f"{where}: services: expected one at least"]
    if problems:
        raise SettingsError(tuple(problems))


def check_volumes(definition: Definition, where: str) -> None:
    """Refuse volumes that hold an image as it is, not its files. Raises SettingsError."""
    problems = tuple(
        f"{where}: volumes.{number}.format: oci is not supported, expected filesystem"
        for number, volume in enumerate(definition.volumes)
        if volume.format == "oci"
    )
    if problems:
        raise SettingsError(problems)


def lay_out(
    definition: Definition, bundles: Sequence[Bundle], images: Mapping[str, Tree], files: Tree
) -> Tree:
    """The image's whole tree; what comes later replaces what is there. Raises SettingsError."""
    kernel = definition.kernel
    tree: Tree = lay_out_kernel(kernel, images[kernel.image]) if kernel and kernel.image else {}
    put_over(tree, _lay_out_init([images[reference] for reference in definition.init]))
    for volume in definition.volumes:
        put_over(tree, _lay_out_volume(volume, images))
    put_over(tree, lay_out_bundles(bundles, images))
    put_over(tree, files)
    check_parents(tree)
    return tree


def _lay_out_init(images: Iterable[Tree]) -> Tree:
    tree: Tree = {}
    installed: list[bytes] = []
    for image in images:
        put_over(tree, prepare_content(image, _RESOLV_LINK))
        installed += [read_content(image[_APK])] if _APK in image else []
    if len(installed) > 1:
        # Each image has its own list; together they are the list of the whole.
        content = b"".join(packages + b"\n\n" for packages in installed)
        tree[_APK] = Node(kind=Kind.FILE, mode=0o644, content=content)
    return tree


def _lay_out_volume(volume: Volume, images: Mapping[str, Tree]) -> Tree:
    base = f"{VOLUMES}/{volume.name}"
    content = prepare_content(images[volume.image], _RESOLV_LINK) if volume.image else {}
    empty = dict.fromkeys((f"{base}/{name}" for name in ("lower", "tmp", "merged")), DIRECTORY)
    return empty | move(content, f"{base}/lower")


def lay_out_bundles(bundles: Sequence[Bundle], images: Mapping[str, Tree]) -> Tree:
    """The directories of containers alone."""
    tree: Tree = {}
    for bundle in bundles:
        own: Tree = {
            "config.json": Node(kind=Kind.FILE, mode=0o644, content=bundle.config),
            "runtime.json": Node(kind=Kind.FILE, mode=0o644, content=bundle.runtime),
            **dict.fromkeys(bundle.empty, DIRECTORY),
        }
        if bundle.content:
            own |= {bundle.content: DIRECTORY}
            own |= move(prepare_content(images[bundle.image], _RESOLV_FILE), bundle.content)
        tree |= move(own, bundle.path)
    return tree


def prepare_content(image: Tree, resolv_conf: Node) -> Tree:
    """A copy without what LinuxKit drops from every image, and with what it adds."""
    mtab = replace(image.get("etc/mtab", _MTAB), mtime=EPOCH)
    added = {"etc/mtab": mtab, "etc/resolv.conf": resolv_conf}
    tree = prune(image, _DROPPED)
    put_over(tree, _ALWAYS_MADE | added)
    return copy(tree)
