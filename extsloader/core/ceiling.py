"""The most that a signed image may ask for on this device, and what a profile adds to that.

A signature says who wrote a specification, not that it is harmless (docs/adr/0018-ceiling.md).
Judged is what the runtime and the mounts would really get, not the files that it was made of.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from extsloader.core.oci_json import shown
from extsloader.core.oci_mounts import SAFE, SAFE_OVERLAY, is_below
from extsloader.model.manifest import Profile, Service
from extsloader.model.plan import MountKind, MountStep
from extsloader.model.settings import Ceiling

_CAPABILITIES = "CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE SETGID SETPCAP SETUID"
CAPABILITIES = frozenset(f"CAP_{name}" for name in _CAPABILITIES.split())
"""Those that reach no further than the service's own files, processes and ports."""

HOST_FILES = ("/etc/hosts", "/etc/localtime", "/etc/resolv.conf", "/run/resolvconf/resolv.conf")
"""What a service may see of the host: read-only, and the same for everybody."""

PLACES = {
    "proc": ("/proc",),
    "sysfs": ("/sys",),
    "cgroup": ("/sys/fs/cgroup",),
    "cgroup2": ("/sys/fs/cgroup",),
}
"""File systems that show the kernel, and where they may be: masks do not cover other places."""

MADE_UP = frozenset({"tmpfs", "devpts", "mqueue"})
DEV: dict[str, object] = {
    "destination": "/dev",
    "type": "tmpfs",
    "source": "tmpfs",
    "options": ("nosuid", "mode=755", "size=65536k"),
}
"""The runtime makes its device nodes there, and masks paths with `/dev/null`: were that a link in
the image, it would mount what the link leads to (CVE-2025-31133). Hence never the service's own
mount, whose `tmpcopyup` would copy the link."""
MOST_RLIMITS = {"RLIMIT_NOFILE": 1 << 20, "RLIMIT_RTPRIO": 0, "RLIMIT_NICE": 20}  # getrlimit(2)

_PROC_MASKED = "kcore keys latency_stats sched_debug timer_list"
_PROC_READ_ONLY = "bus fs irq sys sysrq-trigger"
MASKED = tuple(f"/proc/{name}" for name in _PROC_MASKED.split())
READ_ONLY = tuple(f"/proc/{name}" for name in _PROC_READ_ONLY.split())

# One line each: the kernel itself (modules, another kernel, tracing, clock, power); the key rings,
# which have no namespace (keyrings(7)); mounts and namespaces; other processes' memory; large
# parts of the kernel that few programs need.
_DENIED = """
init_module finit_module delete_module kexec_load kexec_file_load bpf perf_event_open acct
reboot swapon swapoff settimeofday clock_settime iopl ioperm quotactl quotactl_fd
keyctl add_key request_key
mount umount2 move_mount open_tree fsopen fsconfig fsmount fspick mount_setattr pivot_root
unshare setns open_by_handle_at
ptrace process_vm_readv process_vm_writev process_madvise pidfd_getfd kcmp
userfaultfd io_uring_setup io_uring_enter io_uring_register
"""
DENIED = tuple(_DENIED.split())
EPERM, ENOSYS = 1, 38
NO_DEVICES = ({"allow": False, "access": "rwm"},)  # but for /dev/null and such (config-linux.md)
_LAYERS = ("lowerdir=", "upperdir=", "workdir=")
CLONE_NEWUSER = 0x10000000

SECCOMP: dict[str, object] = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [
        {"names": DENIED, "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM},
        {
            "names": ("clone",),
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": EPERM,
            "args": [
                {
                    "index": 0,
                    "value": CLONE_NEWUSER,
                    "valueTwo": CLONE_NEWUSER,
                    "op": "SCMP_CMP_MASKED_EQ",
                }
            ],
        },
        # Its flags are in memory, where seccomp cannot look; libc then takes clone.
        {"names": ("clone3",), "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS},
    ],
}
"""No architecture is named, so calls of any other than the native one end the process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ceiling:
    capabilities: frozenset[str]
    namespaces: tuple[str, ...]  # those that must be new
    host_files: tuple[str, ...]


_CEILINGS = {
    Profile.STRICT: _Ceiling(
        capabilities=frozenset(),
        namespaces=("mount", "pid", "network", "ipc", "uts"),
        host_files=(),
    ),
    # LinuxKit shares network, ipc and uts with the host unless the author says otherwise.
    Profile.DEFAULT: _Ceiling(
        capabilities=CAPABILITIES, namespaces=("mount", "pid"), host_files=HOST_FILES
    ),
}


def find_profile(ceiling: Ceiling, service: Service) -> Profile:
    """What the device grants to a service of this name, or what the manifest asks for if lower.

    Of several lists with its name the lowest counts: a mistake grants less, not more.
    """
    lists = {
        Profile.STRICT: ceiling.strict,
        Profile.DEFAULT: ceiling.default,
        Profile.TRUSTED: ceiling.trusted,
    }
    named = (
        profile
        for profile, patterns in lists.items()
        if any(fnmatchcase(service.name, pattern) for pattern in patterns)
    )
    device = next(named, ceiling.profile)
    return min(device, service.profile or device, key=tuple(Profile).index)


def exceed(
    spec: Mapping[str, Any], steps: tuple[MountStep, ...], own: tuple[str, ...], profile: Profile
) -> tuple[str, ...]:
    """Everything that goes beyond the profile, in sentences.

    `spec` is that of `write_spec`; `own` are the directories that belong to the service.
    """
    ceiling = _CEILINGS.get(profile)
    if ceiling is None:
        return ()
    linux = spec["linux"]
    found = (
        *_process(spec["process"], ceiling),
        *_namespaces(linux["namespaces"], ceiling),
        *(text for mount in spec["mounts"] for text in _mount(mount, own, ceiling)),
        *_kernel(linux),
        *(text for step in steps for text in _step(step, own)),
    )
    return tuple(dict.fromkeys(found))


def harden(spec: dict[str, Any], profile: Profile) -> dict[str, Any]:
    """The specification with what the profile forces; unchanged for the highest profile."""
    if profile not in _CEILINGS:
        return spec
    labels = {"apparmorProfile", "selinuxLabel"}
    process = {key: value for key, value in spec["process"].items() if key not in labels}
    linux = {key: value for key, value in spec["linux"].items() if key != "mountLabel"}
    return spec | {
        "process": process | {"noNewPrivileges": True},
        "mounts": [DEV, *(_confine(m) for m in spec["mounts"] if m.get("destination") != "/dev")],
        "linux": linux
        | {
            "seccomp": SECCOMP,
            "resources": linux["resources"] | {"devices": NO_DEVICES},
            "maskedPaths": _join(linux.get("maskedPaths", ()), MASKED),
            "readonlyPaths": _join(linux.get("readonlyPaths", ()), READ_ONLY),
        },
    }


def _join(theirs: list[str], ours: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*theirs, *ours)))


def _confine(mount: dict[str, Any]) -> dict[str, Any]:
    """Root needs no capability to write to sysfs, whose files it owns, or to open a device node.

    A bind with options of its own would not keep those of the image's mount.
    """
    options, kind = mount.get("options", ()), mount.get("type")
    if kind in PLACES and kind != "proc":
        return mount | {"options": (*_without(options, "rw", "ro"), "ro")}
    if kind == "devpts":
        return mount
    return mount | {"options": (*_without(options, "dev", "suid", *SAFE), *SAFE)}


def _without(options: tuple[str, ...], *names: str) -> tuple[str, ...]:
    return tuple(option for option in options if option not in names)


def _process(process: Mapping[str, Any], ceiling: _Ceiling) -> Iterator[str]:
    asked = {name for names in process["capabilities"].values() for name in names}
    for name in sorted(asked - ceiling.capabilities):
        yield f"capability {shown(name)[1:-1]}"
    for limit in process.get("rlimits", ()):
        most = MOST_RLIMITS.get(limit["type"], limit["hard"])
        if limit["hard"] > most:
            yield f"{limit['type']} {limit['hard']}, at most {most}"
    if process.get("oomScoreAdj", 0) < 0:
        yield f"oom score {process['oomScoreAdj']}, at least 0"


def _namespaces(namespaces: tuple[Mapping[str, str], ...], ceiling: _Ceiling) -> Iterator[str]:
    kinds = {namespace.get("type") for namespace in namespaces}
    for kind in ceiling.namespaces:
        if kind not in kinds:
            yield f"{kind} namespace of the host"
    for namespace in namespaces:
        if "path" in namespace:
            kind = shown(namespace.get("type", ""))[1:-1]
            yield f"{kind} namespace at {shown(namespace['path'])}"


def _mount(mount: Mapping[str, Any], own: tuple[str, ...], ceiling: _Ceiling) -> Iterator[str]:
    target, kind = mount.get("destination", ""), mount.get("type", "")
    options = set(mount.get("options", ()))
    if shared := sorted(options & {"shared", "rshared"}):
        yield f"{shared[0]} mount at {shown(target)}"
    covered: tuple[str, ...] = () if kind in PLACES else ("/proc", "/sys")
    if kind == "bind" or options & {"bind", "rbind"}:
        covered = ("/proc", "/sys", "/dev")
        source = mount.get("source", "")
        readable = source in ceiling.host_files and "ro" in options
        if not readable and not _is_own(source, own):
            yield f"bind of {shown(source)}{'' if 'ro' in options else ', writable'}"
    elif target not in PLACES.get(kind, (target,)) or not (kind in PLACES or kind in MADE_UP):
        yield f"{shown(kind)} mount at {shown(target)}"
    if target == "/" or any(is_below(target, place) for place in covered):
        yield f"mount over {shown(target)}"


def _kernel(linux: Mapping[str, Any]) -> Iterator[str]:
    for device in linux.get("devices", ()):
        path = device.get("path") if isinstance(device, dict) else device
        yield f"device {shown(str(path))}"
    for rule in linux["resources"]["devices"]:
        if not isinstance(rule, dict) or rule.get("allow") is not False:
            yield "access to devices"
    for name in sorted(linux.get("sysctl", ())):
        yield f"sysctl {shown(name)}"
    if (propagation := linux.get("rootfsPropagation", "private")) not in {
        *("private", "rprivate", "slave", "rslave", "unbindable")
    }:
        yield f"root propagation {shown(propagation)}"


def _step(step: MountStep, own: tuple[str, ...]) -> Iterator[str]:
    """What we would make ourselves, on the host's side, for runtime.json."""
    if step.kind is MountKind.CHECK:
        return
    if step.kind is MountKind.MKDIR:
        if not _is_own(step.target, own) and not any(is_below(path, step.target) for path in own):
            yield f"directory on the host at {shown(step.target)}"
        return
    if not _is_own(step.target, own):
        yield f"mount on the host at {shown(step.target)}"
    if step.kind is MountKind.MOUNT and step.fs_type not in {"overlay", "tmpfs"}:
        yield f"{shown(step.fs_type)} mount on the host"
    yield from _options(step)
    for source in _sources(step):
        if not _is_own(source, own):
            yield f"files of the host at {shown(source)}"


def _options(step: MountStep) -> Iterator[str]:
    for option in step.options:
        named = step.fs_type == "overlay" and "=" in option and option not in SAFE_OVERLAY
        if option in {"dev", "suid"} or (named and not option.startswith(_LAYERS)):
            yield f"option {shown(option)} for the mount at {shown(step.target)}"


def _sources(step: MountStep) -> list[str]:
    if step.kind is MountKind.BIND:
        return [step.source]
    layers = [option for option in step.options if option.startswith(_LAYERS)]
    return [path for option in layers for path in option.partition("=")[2].split(":")]


def _is_own(path: str, own: tuple[str, ...]) -> bool:
    return any(is_below(path, directory) for directory in own)
