"""What this device is and what it lets us grant, read once at start from /proc."""

import os
import re
import resource
import shutil
from collections.abc import Iterable
from pathlib import Path

from extsloader.image.strictjson import parse_object
from extsloader.model.errors import MachineError
from extsloader.model.ids import Digest
from extsloader.model.machine import Load, Machine
from extsloader.model.reasons import Code
from extsloader.model.settings import Settings
from extsloader.model.trust import Release

# Names in the order of their bits (linux/capability.h).
CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID"),
    *("SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW"),
    *("IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT"),
    *("SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD"),
    *("LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG"),
    *("WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE"),
)

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "armhf", "i686": "i386"}
"""Kernel names to Debian's, where they differ."""

EPOCH = 1_767_225_600.0  # 2026-01-01: a clock that shows less, as 1970, is wrong anyway
PROGRAMS = ("usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin")
PRESSURE = re.compile(r"some avg10=([0-9.]+) ")
DM_VERITY = re.compile(r"^[^:\s]*/dm-verity\.ko", re.MULTILINE)


def read_machine(settings: Settings, root: Path = Path("/")) -> Machine:
    """The facts; `root` is where /proc, /run and /etc are found. Raises OSError without /proc."""
    status = _read_fields(root / "proc/self/status")
    unlimited = "CAP_SYS_RESOURCE" in _name_capabilities(status["CapEff"])
    kernel = os.uname().machine
    return Machine(
        arch=ARCHITECTURES.get(kernel, kernel),
        boot=_read_word(root / "proc/sys/kernel/random/boot_id"),
        hypervisor=settings.hypervisor or _read_word(root / "run/eve-hv-type") or "kvm",
        core_version=_read_word(root / "etc/eve-release"),
        device_id=settings.device_id,
        cgroups=_read_cgroup_version(root / "proc/self/cgroup"),
        capabilities=_name_capabilities(status["CapBnd"]),
        min_oom_score_adj=-1000 if unlimited else _read_oom_score(root),
        rlimits=() if unlimited else _read_hard_limits(),
        command_line=tuple(_read_word(root / "proc/cmdline").split()),
        no_verity=_find_no_verity(root),
    )


def _read_fields(path: Path) -> dict[str, str]:
    pairs = (line.partition(":") for line in path.read_text(encoding="utf-8").splitlines())
    return {key: value.strip() for key, _, value in pairs}


def _name_capabilities(mask: str) -> frozenset[str]:
    bits = int(mask, 16)
    return frozenset(f"CAP_{name}" for i, name in enumerate(CAPABILITIES) if bits >> i & 1)


def _read_cgroup_version(path: Path) -> int:
    """Version 1 names the controllers of each hierarchy, version 2 has none (cgroups(7))."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return 1 if any("memory" in line.split(":")[1].split(",") for line in lines) else 2


def _read_oom_score(root: Path) -> int:
    """Our own: what we start inherits it, and without CAP_SYS_RESOURCE cannot go below."""
    return int((root / "proc/self/oom_score_adj").read_text(encoding="ascii"))


def _read_hard_limits() -> tuple[tuple[str, int], ...]:
    names = sorted(name for name in dir(resource) if name.startswith("RLIMIT_"))
    limits = ((name, resource.getrlimit(getattr(resource, name))[1]) for name in names)
    return tuple((name, hard) for name, hard in limits if hard != resource.RLIM_INFINITY)


def _find_no_verity(root: Path) -> str:
    """Why reads of an image cannot be checked by dm-verity, "" if they can."""
    programs = os.pathsep.join(str(root / directory) for directory in PROGRAMS)
    if shutil.which("veritysetup", path=programs) is None:
        return "there is no program veritysetup (Debian package cryptsetup-bin)"
    if not _has_verity_target(root):
        return "this kernel has no dm-verity"
    try:
        # Missing on a device where nothing has loaded device-mapper: veritysetup will.
        os.close(os.open(root / "dev/mapper/control", os.O_RDONLY | os.O_CLOEXEC))
    except FileNotFoundError:
        pass
    except OSError as error:
        return f"device-mapper cannot be used: {(error.strerror or '').lower()}"
    return ""


def _has_verity_target(root: Path) -> bool:
    """Loaded or built in, or there to be loaded when it is needed (depmod(8), modules.dep(5))."""
    modules = root / "lib/modules" / os.uname().release
    lists = (_read_word(modules / name) for name in ("modules.builtin", "modules.dep"))
    return (root / "sys/module/dm_verity").exists() or any(map(DM_VERITY.search, lists))


def _read_word(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return ""


def read_clock_floor(file: Path = Path("/usr/lib/clock-epoch")) -> float:
    """When the core was built, seconds since 1970: systemd(1), "clock epoch"."""
    return max(EPOCH, file.stat().st_mtime if file.exists() else 0.0)


def read_baked_floors(keys: str) -> tuple[Release, ...]:
    """`floor.json` beside the keys: `{"<image name>": <sequence>}`. Raises MachineError(E_KEYS)."""
    file = Path(keys, "floor.json")
    try:
        found = parse_object(file.read_bytes())
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        raise MachineError(Code.KEYS, f"use {file}", str(error)) from error
    if not all(type(number) is int and number >= 0 for number in found.values()):
        raise MachineError(Code.KEYS, f"use {file}", 'something like {"pkgs": 42} expected')
    return tuple(Release(name=name, sequence=number) for name, number in found.items())


def read_revoked_images(keys: str) -> frozenset[Digest]:
    """`revoked_images` of `policy.json` beside the keys. Raises MachineError(E_KEYS)."""
    file = Path(keys, "policy.json")
    try:
        found = parse_object(file.read_bytes()).get("revoked_images", [])
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError) as error:
        raise MachineError(Code.KEYS, f"use {file}", str(error)) from error
    if not isinstance(found, list) or not all(isinstance(digest, str) for digest in found):
        raise MachineError(Code.KEYS, f"use {file}", "revoked_images: a list of digests expected")
    return frozenset(map(Digest, found))


class Device:
    """`DevicePort`."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def find_existing(self, paths: Iterable[str]) -> frozenset[str]:
        """As `DevicePort.find_existing`; a link counts as what it leads to."""
        return frozenset(path for path in paths if os.path.exists(f"{self._root}/{path}"))  # noqa: PTH110 - never raises

    def read_load(self) -> Load | None:
        """As `DevicePort.read_load`."""
        try:
            memory = _read_fields(self._root / "proc/meminfo")["MemAvailable"]
        except (OSError, KeyError):
            return None
        return Load(
            free_memory=int(memory.split()[0]) << 10,
            memory_pressure=_read_pressure(self._root / "proc/pressure/memory"),
            cpu_pressure=_read_pressure(self._root / "proc/pressure/cpu"),
        )


def _read_pressure(path: Path) -> float | None:
    """The kernel may lack it (CONFIG_PSI), or refuse to open it (EOPNOTSUPP, psi=0)."""
    try:
        found = PRESSURE.match(path.read_text(encoding="ascii"))
    except OSError:
        return None
    return float(found[1]) if found else None


def read_memory() -> int:
    """Resident memory of this process in bytes (proc_pid_statm(5))."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
