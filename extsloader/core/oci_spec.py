"""The specification that we give to the runtime, written anew from what config.json asks for.

Fields that are not named here never reach the runtime: a careless bundle must not be able to run
hooks on the host (CVE-2019-5736 and the label of GHSA-xhf5-7wjv-pqxp became host commands) or to
speak to the runtime through annotations. What is left out is told in `Findings.reduced`.
"""

import re
from dataclasses import dataclass

from extsloader.core.oci_json import Node, shown
from extsloader.core.oci_mounts import (
    Place,
    is_below,
    is_bind,
    options_of,
    take_absolute,
    volume_of,
)
from extsloader.model.machine import Machine
from extsloader.model.manifest import ProbeKind
from extsloader.model.reasons import Code

VERSION = "1.0.2"
"""Newest version that runc 1.1 and crun 1.8 both know; crun refuses the 1.2 of LinuxKit."""

NOTIFY_DIRECTORY = "/.extsloader"
"""Where a service finds its sd_notify(3) socket: in its root, /dev and /run may be the host's."""

MAX_ID = 2**31 - 1  # larger ones wrap to root in some parsers (CVE-2024-40635)
MAX_LIMIT = 2**64 - 1
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*=")  # of a variable, and the sign after it
CAPABILITY_SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")

KEPT_LINUX = {
    "uidMappings": list,
    "gidMappings": list,
    "devices": list,
    "maskedPaths": list,
    "readonlyPaths": list,
    "sysctl": dict,
    "seccomp": dict,
    "rootfsPropagation": str,
    "mountLabel": str,
}

Object = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """The specification, and what the mounts have to know of it."""

    config: Object
    mounts: tuple[Object, ...]  # those of `config`
    cwd: str
    readonly: bool
    volumes: tuple[str, ...]  # those that the service may write to


def write_spec(config: Node, place: Place, machine: Machine, cgroup: str) -> Spec:
    """Everything that the runtime needs to know. `cgroup` is the name of our parent group."""
    if config.value.get("hooks"):
        config.wrong("hooks", "are not allowed: they run on the host")
    config.leave_out("ociVersion", "process", "root", "hostname", "mounts", "linux", "hooks")
    readonly = config.node("root").flag("readonly")
    mounts, volumes = _write_mounts(config, place)
    env: tuple[str, ...] = ()
    if place.service.readiness.kind is ProbeKind.NOTIFY:
        mounts.append(_mount_notify(place))
        env = (f"NOTIFY_SOCKET={NOTIFY_DIRECTORY}/notify",)
    process = _write_process(config.node("process"), place, machine, env)
    spec: Object = {
        "ociVersion": VERSION,
        "process": process,
        "root": {"path": place.rootfs, "readonly": readonly},
        "mounts": mounts,
        "linux": _write_linux(config.node("linux"), place, cgroup),
    }
    if hostname := config.text("hostname"):
        spec["hostname"] = hostname
    cwd = str(process.get("cwd", "/"))
    return Spec(config=spec, mounts=tuple(mounts), cwd=cwd, readonly=readonly, volumes=volumes)


def _write_mounts(config: Node, place: Place) -> tuple[list[Object], tuple[str, ...]]:
    mounts: list[Object] = []
    volumes: list[str] = []
    for mount in config.nodes("mounts"):
        mount.leave_out("destination", "type", "source", "options")
        options = options_of(mount)
        source = mount.text("source")
        if is_bind(mount):
            source = take_absolute(mount, "source", source)
            if (volume := volume_of(source)) and "ro" not in options:
                volumes.append(volume)
                config.findings.reduced.append(
                    f"volume {volume} is a private copy: what is written is not shared"
                )
        entry = {
            "destination": take_absolute(mount, "destination", mount.text("destination")),
            "type": mount.text("type"),
            "source": place.rebase(source, writable="ro" not in options),
            "options": options,
        }
        mounts.append({key: value for key, value in entry.items() if value})
    return mounts, tuple(dict.fromkeys(volumes))


def _write_process(
    process: Node, place: Place, machine: Machine, more_env: tuple[str, ...]
) -> Object:
    process.leave_out(
        *("user", "args", "env", "cwd", "capabilities", "rlimits"),
        *("noNewPrivileges", "oomScoreAdj", "apparmorProfile", "selinuxLabel"),
    )
    entry: Object = {
        "terminal": False,
        "user": _write_user(process.node("user")),
        "args": _take_args(process),
        "env": (*_take_env(process), *more_env),
        "cwd": _take_cwd(process),
        "capabilities": _grant_capabilities(process.node("capabilities"), machine),
        "rlimits": _grant_rlimits(process, machine),
        "noNewPrivileges": process.flag("noNewPrivileges"),
        "apparmorProfile": process.text("apparmorProfile"),
        "selinuxLabel": process.text("selinuxLabel"),
    }
    score = _grant_oom_score(process, place, machine)
    return {key: value for key, value in entry.items() if value not in ("", ())} | score


def _write_user(user: Node) -> Object:
    """Numbers only: a name would be looked up in a file of the image."""
    user.leave_out("uid", "gid", "umask", "additionalGids")
    groups = user.numbers("additionalGids")
    if not all(0 <= group <= MAX_ID for group in groups):
        user.wrong("additionalGids", f"must be between 0 and {MAX_ID}")
    entry: Object = {
        "uid": user.number("uid", 0, MAX_ID) or 0,
        "gid": user.number("gid", 0, MAX_ID) or 0,
    }
    if groups:
        entry["additionalGids"] = groups
    umask = user.number("umask", 0, 0o777)
    return entry if umask is None else entry | {"umask": umask}


def _take_args(process: Node) -> tuple[str, ...]:
    args = process.texts("args")
    if not args or not args[0]:
        process.wrong("args", "must name the program to run")
    return args


def _take_env(process: Node) -> tuple[str, ...]:
    env = process.texts("env")
    for variable in env:
        if not _NAME.match(variable):
            # The name only: values are often secrets.
            process.wrong("env", f"must hold NAME=VALUE, got {shown(variable.partition('=')[0])}")
    return env


def _take_cwd(process: Node) -> str:
    """A directory of the container, never a way back to the host (CVE-2024-21626)."""
    cwd = take_absolute(process, "cwd", process.text("cwd") or "/")
    if is_below(cwd, "/proc") or is_below(cwd, "/sys"):
        process.wrong("cwd", f"must not be in /proc or /sys, got {shown(cwd)}", Code.PATH)
    return cwd


def _grant_capabilities(asked: Node, machine: Machine) -> Object:
    """What we hold ourselves of what is asked for: nobody can give more (capabilities(7))."""
    asked.leave_out(*CAPABILITY_SETS)
    sets = {name: asked.texts(name) for name in CAPABILITY_SETS}
    for missing in sorted(set().union(*sets.values()) - machine.capabilities):
        asked.findings.reduced.append(
            f"capability {shown(missing)[1:-1]} is not granted: "
            "it is not in the agent's own bounding set"
        )
    return {
        name: tuple(cap for cap in caps if cap in machine.capabilities)
        for name, caps in sets.items()
    }


def _grant_oom_score(process: Node, place: Place, machine: Machine) -> Object:
    """The manifest's score, else the bundle's; only CAP_SYS_RESOURCE may lower it (proc(5))."""
    score = process.number("oomScoreAdj", -1000, 1000)
    asked = place.service.resources.oom_score_adj or score
    if asked is None:
        return {}
    if asked < machine.min_oom_score_adj:
        process.findings.reduced.append(
            f"oom score {asked} is raised to {machine.min_oom_score_adj}: "
            "the agent may not go lower (no CAP_SYS_RESOURCE)"
        )
    return {"oomScoreAdj": max(asked, machine.min_oom_score_adj)}


def _grant_rlimits(process: Node, machine: Machine) -> tuple[Object, ...]:
    ceilings = dict(machine.rlimits)
    granted: dict[str, Object] = {}
    for limit in process.nodes("rlimits"):
        limit.leave_out("type", "soft", "hard")
        name = limit.text("type")
        soft = limit.number("soft", 0, MAX_LIMIT) or 0
        hard = limit.number("hard", 0, MAX_LIMIT) or 0
        if not name or name in granted:
            limit.wrong("type", f"must be there once for each limit, got {shown(name)}")
        if soft > hard:
            limit.wrong("soft", f"must not be above hard, got {soft} and {hard}")
        ceiling = ceilings.get(name, MAX_LIMIT)
        if hard > ceiling:
            process.findings.reduced.append(
                f"{shown(name)[1:-1]} {hard} is lowered to {ceiling}: "
                "the agent may not go higher (no CAP_SYS_RESOURCE)"
            )
        granted[name] = {"type": name, "soft": min(soft, ceiling), "hard": min(hard, ceiling)}
    return tuple(granted.values())


def _write_linux(linux: Node, place: Place, cgroup: str) -> Object:
    """Our own control group, which gets its limits before the service is started.

    Its memory limit is said here, too: crun 1.8 lifts one that the specification does not name.
    """
    linux.leave_out("namespaces", "resources", "cgroupsPath", *KEPT_LINUX)
    namespaces = linux.nodes("namespaces")
    if not any(n.text("type") == "mount" and not n.text("path") for n in namespaces):
        linux.wrong("namespaces", "must hold a new mount namespace")
    resources = linux.node("resources")
    resources.leave_out("devices")
    entry: Object = {key: _take(linux, key, kind) for key, kind in KEPT_LINUX.items()}
    return {key: value for key, value in entry.items() if value} | {
        "namespaces": tuple(
            {key: n.text(key) for key in ("type", "path") if n.text(key)} for n in namespaces
        ),
        "resources": {
            "devices": resources.items("devices"),
            "memory": {"limit": place.service.resources.memory},
        },
        "cgroupsPath": f"/{cgroup}/{place.service.name}",
    }


def _take(linux: Node, key: str, kind: type) -> object:
    if kind is list:
        return linux.items(key)
    return linux.node(key).value if kind is dict else linux.text(key)


def _mount_notify(place: Place) -> Object:
    """The directory, not the socket: so the new socket of a restarted agent appears there, too."""
    options = ("bind", "ro", "nosuid", "nodev", "noexec")
    return {"destination": NOTIFY_DIRECTORY, "source": place.notify, "options": options}
