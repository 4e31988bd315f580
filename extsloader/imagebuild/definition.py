"""LinuxKit image definitions: the keys that a pkgs image uses, every other one is an error."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from extsloader.imagebuild.yamlfile import check, load_yaml
from extsloader.model.errors import SettingsError

_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True)

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")]
"""LinuxKit does not check names; ours become directories, cgroups and container ids."""

Id = Annotated[int, Field(ge=0, le=2**31 - 1)]
"""Larger ids wrapped around to root in a runtime once (CVE-2024-40635)."""

Bind = Annotated[str, StringConstraints(pattern=r"^[^:]+:[^:]+(:[^:]+)?$")]
Tmpfs = Annotated[str, StringConstraints(pattern=r"^/[^:]*(:[^:]+)?$")]
Rlimit = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]+(,([0-9]{1,19}|unlimited)){2}$")]


class Mount(BaseModel):
    """One mount, as the OCI runtime specification has it."""

    model_config = _STRICT

    destination: str
    type: str = ""
    source: str = ""
    options: list[str] = []


class Runtime(BaseModel):
    """What LinuxKit's `service` prepares on the host before it creates the container."""

    model_config = _STRICT

    cgroups: list[str] | None = None
    mounts: list[Mount] | None = None
    mkdir: list[str] | None = None
    namespace: str | None = None


class Container(BaseModel):
    """How to run a container; None is "not said here"."""

    model_config = _STRICT

    command: list[str] | None = None
    env: list[str] | None = None
    cwd: str | None = None
    uid: Id | None = None
    gid: Id | None = None
    additional_gids: list[Id] | None = Field(default=None, alias="additionalGids")
    capabilities: list[str] | None = None
    no_new_privileges: bool | None = Field(default=None, alias="noNewPrivileges")
    rlimits: list[Rlimit] | None = None
    oom_score_adj: int | None = Field(default=None, alias="oomScoreAdj")
    readonly: bool | None = None
    binds: list[Bind] | None = None
    tmpfs: list[Tmpfs] | None = None
    mounts: list[Mount] | None = None
    net: str | None = None
    pid: str | None = None
    ipc: str | None = None
    uts: str | None = None
    hostname: str | None = None
    rootfs_propagation: str | None = Field(default=None, alias="rootfsPropagation")
    cgroups_path: str | None = Field(default=None, alias="cgroupsPath")
    masked_paths: list[str] | None = Field(default=None, alias="maskedPaths")
    readonly_paths: list[str] | None = Field(default=None, alias="readonlyPaths")
    runtime: Runtime | None = None


class Entry(Container):
    """One service of an image definition."""

    name: Name
    image: str
    capabilities_add: list[str] = Field(default=[], alias="capabilities.add")
    binds_add: list[Bind] = Field(default=[], alias="binds.add")


class Definition(BaseModel):
    """An image definition. A pkgs image is not booted: it has no kernel, init or onboot."""

    model_config = _STRICT

    services: list[Entry]


def parse_definition(document: object, where: str) -> Definition:
    """Check a definition. Raises SettingsError with all problems."""
    definition = check(Definition, document, where)
    names = [entry.name for entry in definition.services]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SettingsError(tuple(f"{where}.services: {name} is there twice" for name in twice))
    return definition


def load_definition(path: Path) -> Definition:
    """Read a definition file. Raises SettingsError with all problems."""
    return parse_definition(load_yaml(path), str(path))
