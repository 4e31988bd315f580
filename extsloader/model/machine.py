"""Facts about the device that decisions need; read once at start by an adapter."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What this machine is and what it can grant to a service."""

    arch: str  # "amd64", "arm64"
    boot: str = ""  # random id of this boot
    hypervisor: str = "kvm"
    core_version: str = ""
    device_id: str = ""
    cgroups: int = 1  # version of the hierarchy that holds memory and pids
    capabilities: frozenset[str] = frozenset()  # our bounding set, as "CAP_SYS_ADMIN"
    min_oom_score_adj: int = -1000  # lower values need CAP_SYS_RESOURCE (proc(5))
    command_line: tuple[str, ...] = ()  # words of the kernel's
    no_verity: str = "nobody looked for dm-verity"  # why it cannot be used; "": it can be
    rlimits: tuple[tuple[str, int], ...] = ()  # ("RLIMIT_NOFILE", hard limit) that we cannot raise


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much the device has left. Pressure: Documentation/accounting/psi.rst, "some avg10"."""

    free_memory: int  # bytes, MemAvailable of proc_meminfo(5)
    memory_pressure: float | None = None  # percent; None where the kernel does not say
    cpu_pressure: float | None = None


@dataclass(frozen=True, slots=True)
class Moment:
    """One reading of clock and dice, taken by the loop before each step."""

    now: float  # seconds of CLOCK_BOOTTIME: durations and timers
    wall: float = 0.0  # seconds since 1970, for display only: it may be wrong
    dice: float = 0.0  # [0, 1)


END_OF_TIME = 253_402_300_800.0  # the year 10000: no calendar here goes further


def is_time(wall: float) -> bool:
    """Whether these seconds since 1970 can be shown as a date; NaN cannot."""
    return 0 <= wall < END_OF_TIME
