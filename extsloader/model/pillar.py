"""What the agent tells EVE's Pillar, and what Pillar tells the agent."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from extsloader.model.ids import ServiceName

AGENT = "extsloader"
"""Our name among Pillar's agents: of the publication, of the pid file, of the log."""


class PillarState(IntEnum):
    """`ExtsloaderStatus.State`. Pillar has no word for what runs in part."""

    STARTING = 0
    READY = 1  # nodeagent lets an update pass, vaultmgr and zedagent wait no longer
    FAILED = 2  # vaultmgr and zedagent wait no longer, and never again


class ErrorSeverity(IntEnum):
    """`ErrorDescription.ErrorSeverity`."""

    NONE = 0
    WARNING = 2
    ERROR = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFault:
    """A service that is not as wanted."""

    name: ServiceName
    state: str
    code: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtsloaderStatus:
    """The one item of our publication."""

    state: PillarState = PillarState.STARTING
    reason: str = ""
    partition: str = ""
    image_path: str = ""
    mount_point: str = ""
    severity: ErrorSeverity = ErrorSeverity.NONE
    error_time: float = 0.0  # seconds since 1970; with a severity only
    services: tuple[ServiceFault, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PillarConfig:
    """What of Pillar's configuration is for us; the defaults hold until it arrives."""

    log_level: str = "info"  # as logrus names it, or "none", "all"
    held: Mapping[ServiceName, str] = field(default_factory=dict)  # shall not run, and why
    odd: tuple[str, ...] = ()  # what could not be used, in sentences


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """The same JSON twice: Go sorts the keys on the wire, and a struct's fields in files."""

    wire: bytes
    file: bytes
