"""What LinuxKit makes of an image's configuration and a definition's entry: an OCI specification.

The rules are those of LinuxKit's `ConfigToOCI`; a test holds the outcome against its own.
Keys are in the order of the Go structures, so that the files come out byte for byte the same.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from extsloader.imagebuild.definition import Container, Entry, Mount, Runtime

Json = dict[str, Any]

_UNLIMITED = 2**64 - 1

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

_CAPABILITIES = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO
SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG
MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM
BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
_ALL_CAPABILITIES = [f"CAP_{name}" for name in _CAPABILITIES.split()]
"""In the order of their numbers, include/uapi/linux/capability.h."""


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


def make_spec(image: ImageConfig, entry: Entry) -> Json:
    """The OCI runtime specification of one entry."""
    said = merge(image.label, entry)
    return {
        "ociVersion": "1.2.1",
        "process": _process(image, said),
        "root": {"path": "rootfs"} | ({"readonly": True} if said.readonly else {}),
        **_given(hostname=said.hostname),
        "mounts": [_mount(mount) for mount in _mounts(said)],
        "linux": _linux(said),
    }


def make_runtime(image: ImageConfig, entry: Entry, root_mounts: Sequence[Mount]) -> Json:
    """LinuxKit's runtime.json: its own mounts first, then the entry's (or else the label's)."""
    own, label = entry.runtime or Runtime(), image.label.runtime or Runtime()
    said = label.model_copy(update=_set_fields(own))
    return {
        "cgroups": said.cgroups or [],
        "mounts": [_mount(mount) for mount in (*root_mounts, *(said.mounts or ()))],
        "mkdir": said.mkdir or [],
        "interfaces": [],
        "bindNS": dict.fromkeys(("cgroup", "ipc", "mnt", "net", "pid", "user", "uts"), ""),
        "namespace": said.namespace or "",
    }


def _set_fields(model: Container | Runtime) -> Json:
    return {name: value for name, value in model if value is not None}


def _given(**fields: object) -> Json:
    """Go's `omitempty`."""
    return {name: value for name, value in fields.items() if value}


def _process(image: ImageConfig, said: Container) -> Json:
    user: Json = {"uid": said.uid or 0, "gid": said.gid or 0}
    process: Json = {
        "user": user | _given(additionalGids=said.additional_gids),
        "args": image.args if said.command is None else said.command,
        **_given(env=image.env if said.env is None else said.env),
        "cwd": said.cwd or image.cwd or "/",
        "capabilities": _capabilities(said.capabilities or []),
        **_given(
            rlimits=[_rlimit(limit) for limit in said.rlimits or ()],
            noNewPrivileges=said.no_new_privileges,
        ),
    }
    if said.oom_score_adj is not None:
        process["oomScoreAdj"] = said.oom_score_adj
    return process


def _capabilities(names: list[str]) -> Json:
    effective = {"all": _ALL_CAPABILITIES, "none": []}.get(names[0].lower(), names) if names else []
    all_sets = sorted(set(effective))
    return _given(bounding=all_sets, effective=effective, inheritable=all_sets, permitted=all_sets)


def _rlimit(text: str) -> Json:
    name, soft, hard = text.split(",")
    return {"type": "RLIMIT_" + name.upper().removeprefix("RLIMIT_")} | {
        key: _UNLIMITED if value == "unlimited" else int(value)
        for key, value in (("hard", hard), ("soft", soft))
    }


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
        type=mount.type, source=mount.source, options=mount.options
    )


def _linux(said: Container) -> Json:
    return {
        "resources": {},
        **_given(
            cgroupsPath=said.cgroups_path,
            namespaces=_namespaces(said),
            rootfsPropagation=said.rootfs_propagation,
            maskedPaths=said.masked_paths,
            readonlyPaths=said.readonly_paths,
        ),
    }


def _namespaces(said: Container) -> list[Mapping[str, str]]:
    """Network, IPC and UTS are the host's unless said otherwise; pid and mount are new."""
    wanted = {
        "network": said.net or "host",
        "ipc": said.ipc or "host",
        "uts": said.uts or "host",
        "pid": said.pid or "new",
        "mount": "new",
    }
    return [
        {"type": kind} if what in ("new", "none") else {"type": kind, "path": what}
        for kind, what in wanted.items()
        if what not in ("host", "root")
    ]
