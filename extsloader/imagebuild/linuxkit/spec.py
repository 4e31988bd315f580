"""What LinuxKit makes of an image's configuration and a definition's entry: an OCI specification.

The rules are those of LinuxKit's `ConfigToOCI`; a test holds the outcome against its own.
Keys are in the order of the Go structures, so that the files come out byte for byte the same.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from extsloader.imagebuild.linuxkit.container import (
    ALL_CAPABILITIES,
    Container,
    Device,
    Mount,
    Resources,
    Runtime,
    check_capabilities,
    split_rlimit,
)
from extsloader.imagebuild.linuxkit.definition import Entry, find_id
from extsloader.model.errors import SettingsError

Json = dict[str, Any]

_NO_IDS: Mapping[str, int] = MappingProxyType({})

_EMPTY_IS_UNSAID = ("cwd", "net", "pid", "ipc", "uts", "userns", "hostname")

_DEFAULT_MOUNTS = (
    Mount(destination="/dev", type="tmpfs", source="tmpfs",
          options=["nosuid", "strictatime", "mode=755", "size=65536k"]),
    Mount(destination="/dev/pts", type="devpts", source="devpts",
          options=["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
    Mount(destination="/proc", type="proc", source="proc",
          options=["nosuid", "nodev", "noexec", "relatime"]),
    Mount(destination="/sys", type="sysfs", source="sysfs",
          options=["nosuid", "noexec", "nodev"]),
    Mount(destination="/sys/fs/cgroup", type="cgroup", source="cgroup",
          options=["nosuid", "noexec", "nodev", "relatime", "ro"]),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """What an image says about how to run it."""

    args: tuple[str, ...] = ()  # entry point, then command
    env: tuple[str, ...] = ()
    cwd: str = ""
    label: Container = field(default_factory=Container)  # org.mobyproject.config


def to_json(document: object) -> bytes:
    """Format like Go's `json.MarshalIndent` with four spaces, its escapes for HTML included."""
    text = json.dumps(document, indent=4, ensure_ascii=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text.encode()


def merge(label: Container, entry: Entry) -> Container:
    """The entry's word replaces the label's as a whole; only `.add` lists join."""
    said = label.model_copy(update=_set_fields(entry))
    return said.model_copy(
        update={
            "binds": said.binds if entry.binds is not None
            else [*(label.binds or ()), *entry.binds_add],
            "capabilities": said.capabilities if entry.capabilities is not None
            else [*(label.capabilities or ()), *entry.capabilities_add],
        }
    )  # fmt: skip


def make_spec(image: ImageConfig, entry: Entry, ids: Mapping[str, int] = _NO_IDS) -> Json:
    """The OCI runtime specification of one entry; `ids` are those of names.

    Raises SettingsError for what the label and the entry cannot say together.
    """
    said = merge(image.label, entry)
    return {
        "ociVersion": "1.2.1",
        "process": _process(image, said, ids),
        "root": {"path": "rootfs"} | ({"readonly": True} if said.readonly else {}),
        **_given(hostname=said.hostname),
        "mounts": [_mount(mount) for mount in _mounts(said)],
        **_given(annotations=_sorted(said.annotations)),
        "linux": _linux(said),
    }


def make_runtime(image: ImageConfig, entry: Entry, root_mounts: Sequence[Mount]) -> Json:
    """LinuxKit's runtime.json: its own mounts first, then the entry's (or else the label's)."""
    own, label = entry.runtime or Runtime(), image.label.runtime or Runtime()
    said = label.model_copy(update=_set_fields(own))
    bind_ns = label.bind_ns.model_copy(update=_set_fields(own.bind_ns))
    return {
        "cgroups": said.cgroups or [],
        "mounts": [_mount(mount) for mount in (*root_mounts, *(said.mounts or ()))],
        "mkdir": said.mkdir or [],
        "interfaces": [
            _given(name=interface.name, add=interface.add, peer=interface.peer)
            | {"createInRoot": interface.create_in_root}
            for interface in said.interfaces or ()
        ],
        "bindNS": {name: path or "" for name, path in bind_ns},
        "namespace": said.namespace or "",
    }


def _set_fields(model: BaseModel) -> Json:
    return {
        name: value
        for name, value in model
        if value is not None and (value != "" or name not in _EMPTY_IS_UNSAID)
    }


def _given(**fields: object) -> Json:
    """Go's `omitempty`."""
    return {name: value for name, value in fields.items() if value}


def _dump(model: BaseModel) -> Json:
    dumped = model.model_dump(by_alias=True, exclude_none=True)
    return {name: value for name, value in dumped.items() if value != []}


def _sorted(texts: Mapping[str, str] | None) -> Mapping[str, str]:
    """Go writes the keys of maps in this order."""
    return dict(sorted((texts or {}).items()))


def _process(image: ImageConfig, said: Container, ids: Mapping[str, int]) -> Json:
    groups = [_number(group, ids) for group in said.additional_gids or ()]
    user: Json = {"uid": _number(said.uid, ids), "gid": _number(said.gid, ids)}
    process: Json = {
        "user": user | _given(additionalGids=groups),
        **_given(
            args=image.args if said.command is None else said.command,
            env=image.env if said.env is None else said.env,
        ),
        "cwd": said.cwd or image.cwd or "/",
        "capabilities": _capabilities(said),
        **_given(
            rlimits=[_rlimit(limit) for limit in said.rlimits or ()],
            noNewPrivileges=said.no_new_privileges,
        ),
    }
    if said.oom_score_adj is not None:
        process["oomScoreAdj"] = said.oom_score_adj
    return process


def _number(value: int | str | None, ids: Mapping[str, int]) -> int:
    number = find_id(value, ids)
    if number is None:
        raise SettingsError((f"uid, gid: expected a number or a known name, got {value!r}",))
    return number


def _capabilities(said: Container) -> Json:
    effective, ambient = _expand(said.capabilities or []), _expand(said.ambient or [])
    all_sets = sorted({*effective, *ambient})
    return _given(
        bounding=all_sets,
        effective=effective,
        inheritable=all_sets,
        permitted=all_sets,
        ambient=ambient,
    )


def _expand(names: list[str]) -> list[str]:
    try:
        names = check_capabilities(names)
    except ValueError as error:  # `all` of the one and a name of the other
        raise SettingsError((f"capabilities: {error}",)) from error
    return {"all": ALL_CAPABILITIES, "none": []}.get(names[0].lower(), names) if names else []


def _rlimit(text: str) -> Json:
    name, soft, hard = split_rlimit(text)
    return {"type": name, "hard": hard, "soft": soft}


def _mounts(said: Container) -> list[Mount]:
    """One mount for each destination, later kinds replace earlier ones."""
    chosen = {mount.destination: mount for mount in _DEFAULT_MOUNTS}
    if said.readonly:
        for place in ("/dev", "/sys"):
            chosen[place] = chosen[place].model_copy(
                update={"options": [*chosen[place].options, "ro"]}
            )
    others = (
        *(_tmpfs(text) for text in said.tmpfs or ()),
        *(_bind(text) for text in said.binds or ()),
        *(said.mounts or ()),
    )
    chosen.update((mount.destination, mount) for mount in others)
    return [chosen[destination] for destination in sorted(chosen)]


def _tmpfs(text: str) -> Mount:
    destination, _, options = text.partition(":")
    return Mount(
        destination=destination, type="tmpfs", source="tmpfs",
        options=options.split(",") if options else [],
    )  # fmt: skip


def _bind(text: str) -> Mount:
    source, destination, *options = text.split(":")
    given = [*options[0].split(","), "rbind"] if options else ["rw", "rbind", "rshared"]
    return Mount(destination=destination, type="bind", source=source, options=given)


def _mount(mount: Mount) -> Json:
    return {"destination": mount.destination} | _given(
        type=mount.type,
        source=mount.source,
        options=mount.options,
        uidMappings=[_dump(mapping) for mapping in mount.uid_mappings],
        gidMappings=[_dump(mapping) for mapping in mount.gid_mappings],
    )


def _linux(said: Container) -> Json:
    return {
        **_given(
            uidMappings=[_dump(mapping) for mapping in said.uid_mappings or ()],
            gidMappings=[_dump(mapping) for mapping in said.gid_mappings or ()],
            sysctl=_sorted(said.sysctl),
        ),
        "resources": _resources(said),
        **_given(
            cgroupsPath=said.cgroups_path,
            namespaces=_namespaces(said),
            devices=[_device(device) for device in said.devices or () if device.path != "all"],
            rootfsPropagation=said.rootfs_propagation,
            maskedPaths=said.masked_paths,
            readonlyPaths=said.readonly_paths,
        ),
    }


def _resources(said: Container) -> Json:
    """A device node is of no use unless the devices cgroup allows it."""
    resources = _dump(said.resources or Resources())
    for limit in resources.get("hugepageLimits", ()):
        limit["pageSize"] = _page_size(limit["pageSize"])
    rules = [*resources.pop("devices", ()), *(_rule(device) for device in said.devices or ())]
    return _given(devices=rules) | resources


def _page_size(size: int) -> str:
    """As the names of the hugetlb controller's files have it, for example 2MB."""
    units = ("B", "KB", "MB", "GB")
    power = next((p for p in (3, 2, 1) if size and size % 1024**p == 0), 0)
    return f"{size // 1024**power}{units[power]}"


def _rule(device: Device) -> Json:
    place = {} if device.path == "all" else {"major": device.major, "minor": device.minor}
    return {"allow": True, **_given(type=device.type), **place, "access": "rwm"}


def _device(device: Device) -> Json:
    node = {"path": device.path, "type": device.type, "major": device.major, "minor": device.minor}
    return node | {"fileMode": int(device.mode, 8)}


def _namespaces(said: Container) -> list[Mapping[str, str]]:
    """Network, IPC, UTS and user are the host's unless said otherwise; pid and mount are new."""
    wanted = {
        "network": "new" if said.net == "none" else said.net or "host",
        "ipc": said.ipc or "host",
        "uts": said.uts or "host",
        "pid": said.pid or "new",
        "user": said.userns or "host",
        "mount": "new",
    }
    return [
        {"type": kind} if what == "new" else {"type": kind, "path": what}
        for kind, what in wanted.items()
        if what not in ("host", "root")
    ]
