"""How LinuxKit lays services out in an image, as a pure plan of files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from extsloader.imagebuild.linuxkit.container import Mount
from extsloader.imagebuild.linuxkit.definition import Definition, Entry
from extsloader.imagebuild.linuxkit.spec import (
    ImageConfig,
    make_runtime,
    make_spec,
    merge,
    to_json,
)
from extsloader.imagebuild.tree import DIRECTORY, Kind, Node, Tree, move, prune
from extsloader.model.errors import SettingsError

SERVICES = "containers/services"

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
_RESOLV_CONF = b"\n# no resolv.conf configured\n"
_ALWAYS_MADE: Tree = {
    **dict.fromkeys(("dev", "dev/pts", "dev/shm", "etc", "proc", "sys"), DIRECTORY),
    "etc/hosts": Node(kind=Kind.FILE, mode=0o644, content=_HOSTS),
    "etc/mtab": Node(kind=Kind.LINK, target="/proc/mounts"),
    "etc/resolv.conf": Node(kind=Kind.FILE, mode=0o644, content=_RESOLV_CONF),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """One service's directory in the image."""

    path: str
    config: bytes  # config.json
    runtime: bytes  # runtime.json
    image: str
    content: str | None  # where the image is unpacked: "lower", "rootfs" or not here
    empty: tuple[str, ...]  # directories to mount on


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


def plan_bundles(
    definition: Definition, images: Mapping[str, ImageConfig], where: str
) -> tuple[Bundle, ...]:
    """One bundle for each service, in the definition's order. Raises SettingsError."""
    problems = tuple(
        f"{where}: services.{entry.name}.binds: volumes are not supported: {bind!r} expected to "
        "start with a slash"
        for entry in definition.services
        for bind in merge(images[entry.image].label, entry).binds or ()
        if not bind.startswith("/")
    )
    if problems:
        raise SettingsError(problems)
    unpacked: dict[str, str] = {}
    return tuple(
        _plan_bundle(entry, images[entry.image], definition.ids, unpacked)
        for entry in definition.services
    )


def _plan_bundle(
    entry: Entry, image: ImageConfig, ids: Mapping[str, int], unpacked: dict[str, str]
) -> Bundle:
    """An image is unpacked by its first user; later ones point there (`unpacked` by image)."""
    path = f"{SERVICES}/{entry.name}"
    readonly = bool(merge(image.label, entry).readonly)
    content = None if entry.image in unpacked else "rootfs" if readonly else "lower"
    source = unpacked.setdefault(entry.image, f"/{path}/{content}")
    mounts = _readonly_mounts(path, source) if readonly else _overlay_mounts(path, source)
    wanted = ("rootfs",) if readonly else ("tmp", "rootfs")
    return Bundle(
        path=path,
        config=to_json(make_spec(image, entry, ids)),
        runtime=to_json(make_runtime(image, entry, mounts)),
        image=entry.image,
        content=content,
        empty=tuple(name for name in wanted if name != content),
    )


def _readonly_mounts(path: str, source: str) -> Sequence[Mount]:
    return [Mount(destination=f"/{path}/rootfs", source=source, options=["bind"])]


def _overlay_mounts(path: str, source: str) -> Sequence[Mount]:
    base, tmp = f"/{path}", f"/{path}/" + "tmp"
    return [
        Mount(destination=tmp, type="tmpfs", source="tmpfs"),
        # The upper and work directories must not be seen by other mount namespaces.
        Mount(destination=tmp, options=["remount", "private"]),
        Mount(
            destination=f"{base}/rootfs",
            type="overlay",
            source="overlay",
            options=[
                f"lowerdir={source}",
                f"upperdir={tmp}/upper",
                f"workdir={tmp}/work",
            ],
        ),
    ]


def lay_out(bundles: Sequence[Bundle], images: Mapping[str, Tree]) -> Tree:
    """The image's whole tree."""
    tree: Tree = {}
    for bundle in bundles:
        own: Tree = {
            "config.json": Node(kind=Kind.FILE, mode=0o644, content=bundle.config),
            "runtime.json": Node(kind=Kind.FILE, mode=0o644, content=bundle.runtime),
            **dict.fromkeys(bundle.empty, DIRECTORY),
        }
        if bundle.content:
            own |= {bundle.content: DIRECTORY}
            own |= move(prepare_content(images[bundle.image]), bundle.content)
        tree |= move(own, bundle.path)
    return tree


def prepare_content(image: Tree) -> Tree:
    """Drop and add what LinuxKit drops from and adds to every image."""
    return prune(image, _DROPPED) | _ALWAYS_MADE
