"""The daemon's configuration as data, already checked by `extsloader.settings`."""

from dataclasses import dataclass, field, replace

from extsloader.model.manifest import Profile
from extsloader.model.source import Filters


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Where things are. `below` moves all of them under one directory for `--root`."""

    keys: str = "/etc/extsloader/keys"
    root_hash: str = "/etc/ext-verity-roothash"  # of the one image that needs no signature
    run: str = "/run/extsloader"
    state: str = "/persist/extsloader"
    watch: tuple[str, ...] = ("/persist/ext-imga.img", "/persist/ext-imgb.img")
    # files or directories (each *.img in them)
    pillar: str = "/run"  # where Pillar's agents and memlogd have their sockets and files
    containerd: str = "/run/containerd/containerd.sock"

    def below(self, root: str) -> "Paths":
        """The same paths below the directory `root`."""
        prefix = root.rstrip("/")
        return replace(
            self,
            keys=prefix + self.keys,
            root_hash=prefix + self.root_hash,
            run=prefix + self.run,
            state=prefix + self.state,
            watch=tuple(prefix + path for path in self.watch),
            pillar=prefix + self.pillar,
            containerd=prefix + self.containerd,
        )

    @property
    def socket(self) -> str:
        """The status socket."""
        return f"{self.run}/extsloader.sock"

    @property
    def logs(self) -> str:
        """What services write, `<service>.log`: in memory, and gone after a reboot."""
        return f"{self.run}/log"

    @property
    def memlogd(self) -> str:
        """LinuxKit's socket for streams of log lines."""
        return f"{self.pillar}/linuxkit-external-logging.sock"

    @property
    def memory(self) -> tuple[str, str]:
        """What the agent remembers of images, twice: a directory may be damaged as a whole."""
        return f"{self.state}/memory/images", f"{self.state}/memory-copy/images"

    @property
    def clock(self) -> str:
        """The earliest believable time."""
        return f"{self.state}/memory/clock"

    @property
    def store(self) -> str:
        """Verified images, `<digest>.img`."""
        return f"{self.state}/store"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Device-side limits: for all services together, and defaults where a manifest is silent."""

    memory: int = 0  # bytes for all services together; 0 is three quarters of the machine
    cpu_weight: int = 100  # of all services together against the rest of the machine
    pids: int = 4096  # all services together
    service_memory: int = 128 << 20  # bytes
    service_pids: int = 256
    upper: int = 64 << 20  # bytes that one service may write into its overlay
    restarts: int = 30  # a minute, of all services together; 0: any number
    failures: int = 0  # optional services that may give up before all has failed; 0: any number
    free_memory: int = 32 << 20  # bytes without which no service is started
    memory_pressure: int = 50  # percent of 10 s ("some avg10") above which none is started
    cpu_pressure: int = 0  # the same; 0: is not looked at, as starting is work by itself
    parallel_creates: int = 4  # measured: more gains nothing on two cores
    parallel_helpers: int = 2
    store_images: int = 2  # the active one and one more


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """The most that a signed image may ask for; patterns of service names go before `profile`."""

    profile: Profile = Profile.DEFAULT
    strict: tuple[str, ...] = ()
    default: tuple[str, ...] = ()
    trusted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Deadlines in seconds."""

    probe: float = 5.0
    verify: float = 600.0
    silence: float = 60.0  # without any progress of a helper
    min_rate: int = 1 << 20  # bytes a second that a medium must deliver over 10 s
    choose: float = 2.0  # wait for other candidates' verdicts before the first activation
    retry_base: float = 1.0
    retry_cap: float = 60.0
    retry_limit: int = 5
    probation: float = 600.0  # an image must run well for so long before older ones are refused
    runtime: float = 30.0  # one call of the container runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """Which devices the agent works on, and which services it runs there."""

    percent: int = 100  # of all devices, by a hash of `device_id`
    salt: str = ""  # another word chooses other devices
    allow: tuple[str, ...] = ()  # patterns of service names; empty: all
    deny: tuple[str, ...] = ()  # stronger than `allow`


@dataclass(frozen=True, slots=True, kw_only=True)
class Logs:
    """What becomes of the output of services."""

    to: str = "auto"  # "files"; auto: memlogd where it is there
    size: int = 512 << 10  # bytes of one file; a service has two


@dataclass(frozen=True, slots=True, kw_only=True)
class Pillar:
    """How the agent gets on with EVE's own agents."""

    enabled: bool = False
    partial: str = "ready"  # "failed": an update does not pass unless every service runs
    watchdog: bool = True  # hanging or ending reboots the device
    state_file: bool = True  # extsloader-state.json, for tools


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that an operator may set."""

    enabled: bool = True
    device_id: str = ""
    hypervisor: str = ""  # "": read from /run/eve-hv-type, "kvm" where that is missing
    udev: bool = True  # watch block devices
    runtime: str = "auto"  # "runc", "crun", "containerd"; auto: crun where cgroups are v2
    integrity: str = "auto"  # "store", "verity"; auto: verity where the kernel has dm-verity
    cgroup: str = "extsloader"  # name of the parent group
    log_format: str = "text"  # "json"
    socket_group: str = ""  # group that may read the status; "": root only
    paths: Paths = field(default_factory=Paths)
    filters: Filters = field(default_factory=Filters)
    rollout: Rollout = field(default_factory=Rollout)
    limits: Limits = field(default_factory=Limits)
    timeouts: Timeouts = field(default_factory=Timeouts)
    ceiling: Ceiling = field(default_factory=Ceiling)
    logs: Logs = field(default_factory=Logs)
    pillar: Pillar = field(default_factory=Pillar)
