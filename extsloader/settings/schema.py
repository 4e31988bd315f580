"""What each setting may be: the checked twin of `extsloader.model.settings`.

The types are repeated here because pydantic must not come into the daemon; a test holds names,
types and defaults of both equal.
"""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from extsloader.model.manifest import Profile
from extsloader.model.settings import (
    Ceiling,
    Limits,
    Logs,
    Paths,
    Pillar,
    Rollout,
    Settings,
    Timeouts,
)
from extsloader.model.source import Filters, FsType

SIZE = re.compile(r"(\d{1,15})([KMGT])(iB|B)?")
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
RUN_PATH = 107 - len("/extsloader.sock")  # what a unix socket's path may have (unix(7))


def read_size(value: object) -> object:
    """Bytes from "64M" (binary units); anything but such a text passes unchanged."""
    if not isinstance(value, str):
        return value
    if fits := SIZE.fullmatch(value):
        return int(fits[1]) * UNITS[fits[2]]
    raise PydanticCustomError("size", "a number of bytes, or a text such as '64M' or '2G'")


def refuse_relative(value: str) -> str:
    """An absolute path that the kernel can take."""
    if value.startswith("/") and "\0" not in value:
        return value
    raise PydanticCustomError("path", "an absolute path")


def refuse_nothing(value: tuple[FsType, ...]) -> tuple[FsType, ...]:
    """At least one: with none, nothing could ever be found."""
    if value:
        return value
    raise PydanticCustomError("nothing", "at least one")


Size = Annotated[int, BeforeValidator(read_size), Field(ge=0, lt=1 << 62)]
Path = Annotated[str, Field(max_length=4096), AfterValidator(refuse_relative)]
RunPath = Annotated[str, Field(max_length=RUN_PATH), AfterValidator(refuse_relative)]
# Lists of a file are no tuples, and words are no enum members: these two may be converted.
Name = Annotated[str, Field(min_length=1)]
Names = Annotated[tuple[Name, ...], Field(strict=False, max_length=64)]
FileName = Annotated[str, Field(pattern=r"^[^/\x00]{1,255}$")]
FileNames = Annotated[tuple[FileName, ...], Field(strict=False, max_length=64)]
FsTypes = Annotated[
    tuple[Annotated[FsType, Field(strict=False)], ...],
    Field(strict=False, max_length=16),
    AfterValidator(refuse_nothing),
]
Seconds = Annotated[float, Field(gt=0, le=86400)]


class _Table(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class PathsTable(_Table):
    """`[paths]`."""

    keys: Path = Paths().keys
    root_hash: Path = Paths().root_hash
    run: RunPath = Paths().run
    state: Path = Paths().state
    watch: Annotated[tuple[Path, ...], Field(strict=False, max_length=64)] = Paths().watch
    pillar: Path = Paths().pillar
    containerd: Path = Paths().containerd


class FiltersTable(_Table):
    """`[filters]`."""

    fs_types: FsTypes = Filters().fs_types
    files: FileNames = Filters().files
    labels: Names = ()
    partition_labels: Names = ()
    partition_types: Names = ()
    min_size: Size = Filters().min_size
    max_size: Size = Filters().max_size
    removable: bool | None = None
    ignored_partition_labels: Names = Filters().ignored_partition_labels
    devices: Names = ()

    @model_validator(mode="after")
    def _is_a_window(self) -> Self:
        if self.min_size > self.max_size:
            raise PydanticCustomError("window", "min_size not above max_size")
        return self


class RolloutTable(_Table):
    """`[rollout]`."""

    percent: Annotated[int, Field(ge=0, le=100)] = Rollout().percent
    salt: Annotated[str, Field(max_length=64)] = ""
    allow: Names = ()
    deny: Names = ()


class LimitsTable(_Table):
    """`[limits]`."""

    memory: Size = Limits().memory
    cpu_weight: Annotated[int, Field(ge=1, le=10000)] = Limits().cpu_weight
    pids: Annotated[int, Field(ge=1, le=1 << 22)] = Limits().pids
    service_memory: Size = Limits().service_memory
    service_pids: Annotated[int, Field(ge=1, le=1 << 22)] = Limits().service_pids
    upper: Size = Limits().upper
    restarts: Annotated[int, Field(ge=0, le=10000)] = Limits().restarts
    failures: Annotated[int, Field(ge=0, le=1000)] = Limits().failures
    free_memory: Size = Limits().free_memory
    memory_pressure: Annotated[int, Field(ge=0, le=100)] = Limits().memory_pressure
    cpu_pressure: Annotated[int, Field(ge=0, le=100)] = Limits().cpu_pressure
    parallel_creates: Annotated[int, Field(ge=1, le=64)] = Limits().parallel_creates
    parallel_helpers: Annotated[int, Field(ge=1, le=8)] = Limits().parallel_helpers
    store_images: Annotated[int, Field(ge=1, le=16)] = Limits().store_images


class TimeoutsTable(_Table):
    """`[timeouts]`."""

    probe: Seconds = Timeouts().probe
    verify: Seconds = Timeouts().verify
    silence: Seconds = Timeouts().silence
    min_rate: Size = Timeouts().min_rate
    choose: Annotated[float, Field(ge=0, le=86400)] = Timeouts().choose
    retry_base: Seconds = Timeouts().retry_base
    retry_cap: Seconds = Timeouts().retry_cap
    retry_limit: Annotated[int, Field(ge=0, le=1000)] = Timeouts().retry_limit
    probation: Seconds = Timeouts().probation
    runtime: Seconds = Timeouts().runtime

    @model_validator(mode="after")
    def _base_is_below_cap(self) -> Self:
        if self.retry_base > self.retry_cap:
            raise PydanticCustomError("order", "retry_base not above retry_cap")
        return self


class CeilingTable(_Table):
    """`[ceiling]`."""

    profile: Annotated[Profile, Field(strict=False)] = Ceiling().profile
    strict: Names = ()
    default: Names = ()
    trusted: Names = ()


class LogsTable(_Table):
    """`[logs]`."""

    to: Literal["auto", "files"] = "auto"
    size: Annotated[int, BeforeValidator(read_size), Field(ge=16 << 10, lt=1 << 30)] = Logs().size


class PillarTable(_Table):
    """`[pillar]`."""

    enabled: bool = Pillar().enabled
    partial: Literal["ready", "failed"] = "ready"
    watchdog: bool = Pillar().watchdog
    state_file: bool = Pillar().state_file


class SettingsTable(_Table):
    """The whole file."""

    enabled: bool = Settings().enabled
    device_id: Annotated[str, Field(max_length=128)] = ""
    hypervisor: Annotated[str, Field(pattern=r"^[a-z0-9-]{0,32}$")] = ""
    udev: bool = Settings().udev
    runtime: Literal["auto", "runc", "crun", "containerd"] = "auto"
    integrity: Literal["auto", "store", "verity"] = "auto"
    cgroup: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")] = Settings().cgroup
    log_format: Literal["text", "json"] = "text"
    socket_group: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{0,32}$")] = ""
    paths: PathsTable = PathsTable()
    filters: FiltersTable = FiltersTable()
    rollout: RolloutTable = RolloutTable()
    limits: LimitsTable = LimitsTable()
    timeouts: TimeoutsTable = TimeoutsTable()
    ceiling: CeilingTable = CeilingTable()
    logs: LogsTable = LogsTable()
    pillar: PillarTable = PillarTable()
