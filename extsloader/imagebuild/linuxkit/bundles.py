"""The directories of containers as LinuxKit lays them out, as a pure plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from extsloader.imagebuild.linuxkit.container import Container, Mount
from extsloader.imagebuild.linuxkit.definition import Definition, Entry
from extsloader.imagebuild.linuxkit.spec import (
    ImageConfig,
    make_runtime,
    make_spec,
    merge,
    to_json,
)
from extsloader.model.errors import SettingsError

SERVICES = "containers/services"
VOLUMES = "containers/volumes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """One container's directory in the image."""

    path: str
    config: bytes  # config.json
    runtime: bytes  # runtime.json
    image: str
    content: str | None  # where the image is unpacked: "lower", "rootfs" or not here
    empty: tuple[str, ...]  # directories to mount on


def plan_bundles(
    definition: Definition, images: Mapping[str, ImageConfig], where: str
) -> tuple[Bundle, ...]:
    """One bundle for each container, in LinuxKit's order. Raises SettingsError with all problems.

    An image is unpacked by its first user in this order; later ones point there.
    """
    volumes = {volume.name for volume in definition.volumes}
    unpacked: dict[str, str] = {}
    bundles: list[Bundle] = []
    problems: list[str] = []
    for section, entries in definition.sections.items():
        for number, entry in enumerate(entries):
            # LinuxKit runs these one after the other, sorted, and lets them have one name.
            prefix = "" if section == "services" else f"{number:03d}-"
            path = f"containers/{section}/{prefix}{entry.name}"
            try:
                image = images[entry.image]
                own = _bind_volumes(entry, image.label, volumes)
                bundles.append(_plan_bundle(path, own, image, definition.ids, unpacked))
            except SettingsError as error:
                problems += [f"{where}: {section}.{entry.name}: {text}" for text in error.problems]
    if problems:
        raise SettingsError(tuple(problems))
    return tuple(bundles)


def _bind_volumes(entry: Entry, label: Container, volumes: set[str]) -> Entry:
    """The entry with all of its binds and the places of volumes in them. Raises SettingsError."""
    binds = merge(label, entry).binds or []
    named = [bind for bind in binds if not bind.startswith("/")]
    if wrong := [bind for bind in named if _source(bind) not in volumes]:
        got = ", ".join(map(repr, wrong))
        raise SettingsError((f"binds: expected a path or the name of a volume, got {got}",))
    placed = [
        f"/{VOLUMES}/{_source(bind)}/merged:{bind.partition(':')[2]}" if bind in named else bind
        for bind in binds
    ]
    return entry.model_copy(update={"binds": placed})


def _source(bind: str) -> str:
    return bind.partition(":")[0]


def _plan_bundle(
    path: str, entry: Entry, image: ImageConfig, ids: Mapping[str, int], unpacked: dict[str, str]
) -> Bundle:
    """`unpacked` says by image where it is; a first user adds to it."""
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
