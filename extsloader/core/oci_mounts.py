"""From a bundle's runtime.json to mounts, for an image that is not mounted at `/`.

LinuxKit writes runtime.json for an image that is the root file system: the paths in it start with
`/containers/`. Here the image is mounted somewhere else and read-only, so each such path leads
either into the image (what is read) or into directories of our own (what is written).
"""

import re
from dataclasses import dataclass
from posixpath import normpath

from extsloader.core.oci_json import Node, shown
from extsloader.model.manifest import Service
from extsloader.model.plan import MountKind, MountStep
from extsloader.model.reasons import Code

HOST_PLACES = ("/run", "/persist")
"""Where runtime.json may mount and make directories outside of the service's own root."""

VIRTUAL_TYPES = frozenset(
    {"bpf", "cgroup", "cgroup2", "debugfs", "devpts", "devtmpfs", "hugetlbfs", "mqueue"}
    | {"proc", "securityfs", "sysfs", "tmpfs", "tracefs"}
)
"""File systems that the kernel makes up: no bytes of a disk are parsed for them."""

SAFE = ("nosuid", "nodev")
UNDIRECTED = ("redirect_dir=nofollow", "metacopy=off")
SAFE_OVERLAY = (*SAFE, *UNDIRECTED)
"""An overlay takes no flags from its lower directories, and must not believe their attributes:
trusted.overlay.redirect may lead to any other directory of a layer (overlayfs.rst, "Renaming")."""

_VOLUME = re.compile(r"(/containers/volumes/([a-z0-9_-]+))/merged(/.*)?")
_SCRATCH = "tmp"  # LinuxKit mounts a tmpfs there
_WRITTEN = ("upperdir", "workdir")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the things of one service are, in the image and on the device."""

    service: Service
    image: str  # mount point of the image
    run: str
    state: str
    digest: str  # short form, so that an upper directory never meets another lower one
    upper_size: int  # bytes

    @property
    def own_rootfs(self) -> str:
        """The mount point of the root file system as the image's files name it."""
        return f"/{self.service.bundle}/rootfs"

    @property
    def own_tmp(self) -> str:
        """The place for upper directories as the image's files name it."""
        return f"/{self.service.bundle}/{_SCRATCH}"

    @property
    def bundle_dir(self) -> str:
        """Holds the mount point of the root file system; an upper of another image is elsewhere."""
        return f"{self.run}/bundles/{self.service.name}-{self.digest}"

    @property
    def rootfs(self) -> str:
        """Root file system of the container."""
        return f"{self.bundle_dir}/rootfs"

    @property
    def upper(self) -> str:
        """The tmpfs that takes everything that the service writes into its overlays."""
        return f"{self.run}/uppers/{self.service.name}-{self.digest}"

    @property
    def notify(self) -> str:
        """Directory of the sd_notify(3) socket."""
        return f"{self.run}/notify/{self.service.name}"

    @property
    def copies(self) -> str:
        """Private copies of volumes."""
        return f"{self.upper}/volumes"

    @property
    def own(self) -> tuple[str, ...]:
        """Everything that belongs to the service: all else is the host's."""
        return f"{self.image}/containers", self.bundle_dir, self.upper, self.notify

    def rebase(self, path: str, *, writable: bool = False) -> str:
        """Where something that the image's files speak of is on this device."""
        if volume := _VOLUME.fullmatch(path):
            copy = f"{self.copies}/{volume[2]}/merged"
            return (copy if writable else f"{self.image}{volume[1]}/lower") + (volume[3] or "")
        if is_below(path, self.own_tmp):
            return self.upper + path.removeprefix(self.own_tmp)
        return self.image + path if is_below(path, "/containers") else path


def is_below(path: str, directory: str) -> bool:
    """Whether the normalised path is the directory or something in it."""
    return path == directory or path.startswith(f"{directory}/")


def volume_of(path: str) -> str:
    """Name of the LinuxKit volume whose content is at this path, "" for another path."""
    volume = _VOLUME.fullmatch(path)
    return volume[2] if volume else ""


def take_path(node: Node, key: str, path: str) -> str:
    """The path, normalised; "" with a finding where it is missing or climbs."""
    if not path:
        node.wrong(key, "is missing")
        return ""
    if ".." in path.split("/"):
        node.wrong(key, f"must not climb by '..', got {shown(path)}", Code.PATH)
        return ""
    return normpath(path).replace("//", "/")  # normpath keeps a leading "//" (POSIX 4.13)


def take_absolute(node: Node, key: str, path: str) -> str:
    """The same for a path that has to start at the root."""
    path = take_path(node, key, path)
    if path and not path.startswith("/"):
        node.wrong(key, f"must be an absolute path, got {shown(path)}", Code.PATH)
    return path


def is_bind(mount: Node) -> bool:
    """Whether the mount shows something that is there already."""
    return mount.text("type") == "bind" or not {"bind", "rbind"}.isdisjoint(options_of(mount))


def options_of(mount: Node) -> tuple[str, ...]:
    """One by one: with "x,lowerdir=/etc" as one option, our rules would see only the first part."""
    return tuple(part for option in mount.texts("options") for part in option.split(","))


def read_runtime(
    node: Node, place: Place, *, readonly: bool
) -> tuple[tuple[str, ...], list[MountStep]]:
    """The directories that make up the root (topmost first), and what is to be made after it."""
    root: tuple[str, ...] = ()
    steps: list[MountStep] = []
    for mount in node.nodes("mounts"):
        destination = take_path(mount, "destination", mount.text("destination"))
        if destination == place.own_tmp:
            continue  # ours instead: its size and mode are limits of the device
        if destination == place.own_rootfs:
            root = root or _read_root(mount, place)
        elif destination:
            steps += _read_mount(mount, destination, place)
    for path in node.texts("mkdir"):
        if directory := take_path(node, "mkdir", path):
            steps += _target(node, "mkdir", directory, place)[1]
    _tell_what_is_left_out(node)
    return root or _usual_root(place, readonly=readonly), steps


def mount_root(root: tuple[str, ...], volumes: tuple[str, ...], place: Place) -> list[MountStep]:
    """Mounts for the root file system and for private copies of the named volumes.

    A read-only root is an overlay, too: the runtime makes missing mount points in it before it
    makes it read-only (config.md, "root"), which it cannot do in the image itself.
    """
    options = (*SAFE, "mode=0700", f"size={place.upper_size}")
    return [
        *make_directories(place.rootfs, place.run),
        *make_directories(place.upper, place.run),
        _mount("tmpfs", "tmpfs", place.upper, options),
        *_overlay(root, place.upper, place.rootfs),
        *(step for volume in volumes for step in _copy_volume(volume, place)),
    ]


def make_directories(path: str, base: str) -> list[MountStep]:
    """One step for each directory below `base`, so that each one made is undone."""
    steps = []
    for part in path.removeprefix(base).strip("/").split("/"):
        base = f"{base}/{part}"
        steps.append(MountStep(kind=MountKind.MKDIR, target=base))
    return steps


def _copy_volume(volume: str, place: Place) -> list[MountStep]:
    lower = f"{place.image}/containers/volumes/{volume}/lower"
    base = f"{place.copies}/{volume}"
    target = f"{base}/merged"
    return [*make_directories(target, place.upper), *_overlay((lower,), base, target)]


def _overlay(lower: tuple[str, ...], base: str, target: str) -> list[MountStep]:
    upper, work = f"{base}/upper", f"{base}/work"
    options = (f"lowerdir={':'.join(lower)}", f"upperdir={upper}", f"workdir={work}")
    return [
        *make_directories(upper, base),
        *make_directories(work, base),
        _mount("overlay", "overlay", target, (*SAFE_OVERLAY, *options)),
    ]


def _mount(fs_type: str, source: str, target: str, options: tuple[str, ...]) -> MountStep:
    return MountStep(
        kind=MountKind.MOUNT, fs_type=fs_type, source=source, target=target, options=options
    )


def _bind(source: str, target: str, options: tuple[str, ...]) -> MountStep:
    return MountStep(kind=MountKind.BIND, source=source, target=target, options=options)


def _usual_root(place: Place, *, readonly: bool) -> tuple[str, ...]:
    """LinuxKit puts the content of a read-only service into rootfs, of any other into lower."""
    directory = "rootfs" if readonly else "lower"
    return (f"{place.image}/{place.service.bundle}/{directory}",)


def _read_root(mount: Node, place: Place) -> tuple[str, ...]:
    """An overlay for a writable root, a bind for a read-only one, maybe of another's content."""
    options = options_of(mount)
    if mount.text("type") == "overlay":
        lower = next((o for o in options if o.startswith("lowerdir=")), "lowerdir=")
        paths = lower.removeprefix("lowerdir=").split(":")
    elif is_bind(mount):
        paths = [mount.text("source")]
    else:
        mount.wrong("type", "of the root file system must be overlay or a bind")
        paths = []
    return tuple(place.rebase(_overlay_path(mount, path)) for path in paths)


def _read_mount(mount: Node, destination: str, place: Place) -> list[MountStep]:
    """One of the mounts that the author of the service added."""
    target, steps = _target(mount, "destination", destination, place)
    options = options_of(mount)
    fs_type = mount.text("type")
    if "remount" in options:
        mount.findings.reduced.append(f"{mount.where} is not used: it is a remount")
        return []
    if is_bind(mount):
        source = place.rebase(take_absolute(mount, "source", mount.text("source")))
        kept = tuple(o for o in options if o != "bind")
        return [*steps, _bind(source, target, kept)]
    if fs_type == "overlay":
        options, directories = _rebase_overlay(mount, options, place)
        steps += directories
    elif fs_type not in VIRTUAL_TYPES:
        mount.wrong("type", f"must be overlay, tmpfs or another virtual one, got {shown(fs_type)}")
    return [*steps, _mount(fs_type, mount.text("source") or fs_type, target, options)]


def _rebase_overlay(
    mount: Node, options: tuple[str, ...], place: Place
) -> tuple[tuple[str, ...], list[MountStep]]:
    """Options with our paths, and the directories that LinuxKit would make for them."""
    rebased = list(SAFE)
    steps: list[MountStep] = []
    for option in options:
        key, _, value = option.partition("=")
        if key == "lowerdir":
            paths = (place.rebase(_overlay_path(mount, path)) for path in value.split(":"))
            rebased.append(f"lowerdir={':'.join(paths)}")
        elif key in _WRITTEN:
            target, directories = _target(mount, "options", _overlay_path(mount, value), place)
            steps += directories
            rebased.append(f"{key}={target}")
        else:
            rebased.append(option)
    return (*rebased, *UNDIRECTED), steps  # the last word counts


def _overlay_path(mount: Node, path: str) -> str:
    """Overlayfs splits its options at commas and colons, so no path may hold one."""
    if not set(path).isdisjoint(",:\\"):
        mount.wrong("options", f"must not hold , : or \\ in a path, got {shown(path)}", Code.PATH)
        return ""
    return take_absolute(mount, "options", path)


def _target(node: Node, key: str, path: str, place: Place) -> tuple[str, list[MountStep]]:
    """Where to mount or make something, and the directories on the way there."""
    if not path.startswith("/"):
        path = f"{place.own_rootfs}/{path}"
    for theirs, ours in ((place.own_rootfs, place.rootfs), (place.own_tmp, place.upper)):
        if is_below(path, theirs):
            target = ours + path.removeprefix(theirs)
            return target, make_directories(target, ours) if target != ours else []
    path = path.removeprefix("/var") if is_below(path, "/var/run") else path
    base = next((host for host in HOST_PLACES if path.startswith(f"{host}/")), "")
    if not base or any(is_below(path, ours) for ours in (place.run, place.state)):
        places = ", ".join(HOST_PLACES)
        node.wrong(
            key, f"must be in the root file system or below {places}, got {shown(path)}", Code.PATH
        )
        return "", []
    return path, make_directories(path, base)


def _tell_what_is_left_out(node: Node) -> None:
    reduced = node.findings.reduced
    if cgroups := node.texts("cgroups"):
        reduced.append(f"runtime.json cgroups are not made: {', '.join(map(shown, cgroups))}")
    if interfaces := node.nodes("interfaces"):
        names = ", ".join(shown(interface.text("name")) for interface in interfaces)
        reduced.append(f"runtime.json interfaces are not made: {names}")
    bound = [name for name, path in sorted(node.node("bindNS").value.items()) if path]
    if bound:
        reduced.append(f"runtime.json bindNS is not done: {', '.join(map(shown, bound))}")
    if namespace := node.text("namespace"):
        reduced.append(f"runtime.json namespace is not used: {shown(namespace)}")
    node.leave_out("mounts", "mkdir", "cgroups", "interfaces", "bindNS", "namespace")
