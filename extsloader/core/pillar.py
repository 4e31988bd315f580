"""ExtsloaderStatus: our states in the three words that Pillar has, ADR 28.

What its readers do with them decides what may be said. nodeagent asks at the end of the test of
an update whether the state is READY, and rolls back otherwise. vaultmgr and zedagent wait for
READY or FAILED, two minutes at most, and take it to mean that PCR 12 does not change any more.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from extsloader.core.gojson import encode
from extsloader.model.pillar import ErrorSeverity, ExtsloaderStatus, PillarState, ServiceFault
from extsloader.model.reasons import Code
from extsloader.model.settings import Pillar
from extsloader.model.status import DAMAGED, AgentState, ServiceStatus, StatusSnapshot

MARK = 110.0
"""Seconds after the agent's start: shortly before vaultmgr and zedagent give up by themselves."""

MAX_JSON = 16 << 10  # bytes; a packet takes three times as much
MAX_REASON, MAX_FAULT = 512, 160  # characters
MAX_FAULTS = 32  # services
ZERO_TIME = "0001-01-01T00:00:00Z"  # time.Time{}

HELD = frozenset({"skipped", "excluded", "paused", "stopped"})
WELL = frozenset({"ready", "finished"})

Verdict = tuple[PillarState, ErrorSeverity]

STARTING: Verdict = (PillarState.STARTING, ErrorSeverity.NONE)
READY: Verdict = (PillarState.READY, ErrorSeverity.NONE)
PARTLY: Verdict = (PillarState.READY, ErrorSeverity.WARNING)
FAILED: Verdict = (PillarState.FAILED, ErrorSeverity.ERROR)


def tell(
    snapshot: StatusSnapshot, settings: Pillar, partition: str, mountpoint: str, elapsed: float
) -> ExtsloaderStatus:
    """What to publish; `elapsed` is the seconds since the agent's start."""
    late = STARTING if elapsed < MARK else FAILED
    state, severity = _judge(snapshot, settings, late)
    image = snapshot.image
    mounted = image is not None and image.phase in ("mounted", DAMAGED)
    faults = () if severity is ErrorSeverity.NONE else _find_faults(snapshot.services)
    told = ExtsloaderStatus(
        state=state,
        reason="" if (state, severity) == READY else snapshot.reason[:MAX_REASON],
        partition=partition,
        image_path=image.source if image else "",
        mount_point=mountpoint if mounted else "",
        severity=severity,
        error_time=snapshot.since if severity else 0.0,
        services=faults,
    )
    while told.services and len(encode(show(told))) > MAX_JSON:
        told = replace(told, services=told.services[:-1])
    return told


def show(status: ExtsloaderStatus) -> dict[str, Any]:
    """The fields in the order of the struct, and where services have faults one more."""
    error = status.severity is not ErrorSeverity.NONE
    fields = {
        "State": int(status.state),
        "Reason": status.reason,
        "Partition": status.partition,
        "ImagePath": status.image_path,
        "MountPoint": status.mount_point,
        "Error": status.reason if error else "",
        "ErrorTime": format_time(status.error_time) if error else ZERO_TIME,
        "ErrorSeverity": int(status.severity),
        "ErrorRetryCondition": "",
        "ErrorEntities": None,
    }
    if status.services:
        fields["Services"] = {
            fault.name: {"State": fault.state, "Code": fault.code, "Reason": fault.reason}
            for fault in status.services
        }
    return fields


def show_state_file(status: ExtsloaderStatus, wall: float) -> dict[str, str]:
    """What tools read in /run/extsloader-state.json; what is empty is not there."""
    found = {
        "state": status.state.name.lower(),
        "reason": status.reason,
        "partition": status.partition,
        "imagePath": status.image_path,
        "mountPoint": status.mount_point,
        "updatedAt": format_time(wall),
    }
    return {key: text for key, text in found.items() if text}


def format_time(wall: float) -> str:
    """RFC 3339 as Go writes it: no zeros at the end of the fraction. Another text is dropped."""
    if wall <= 0:
        return ZERO_TIME
    try:
        text = datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
    except (ValueError, OverflowError, OSError):
        return ZERO_TIME
    return text.rstrip("0").rstrip(".") + "Z"


def _judge(snapshot: StatusSnapshot, settings: Pillar, late: Verdict) -> Verdict:
    match snapshot.state:
        case AgentState.READY:
            return READY
        case AgentState.FAILED | AgentState.DISABLED:
            return FAILED
        case AgentState.SEARCHING:
            return late
        case AgentState.DEGRADED:
            return _judge_part(snapshot, settings, late)
        case AgentState.VERIFYING | AgentState.ACTIVATING | AgentState.STOPPING:
            # Work that goes on will change PCR 12: no end may be claimed, however long it takes.
            return STARTING


def _judge_part(snapshot: StatusSnapshot, settings: Pillar, late: Verdict) -> Verdict:
    """Some services run and some do not."""
    if snapshot.image is not None and snapshot.image.phase == DAMAGED:
        return FAILED
    meant = [service for service in snapshot.services if service.state not in HELD]
    lacking = [service for service in meant if not _is_well(service)]
    if any(service.essential for service in lacking) or len(lacking) == len(meant) > 0:
        return late
    if any(_is_new(service) for service in lacking) and late is STARTING:
        return STARTING
    return PARTLY if settings.partial == "ready" else late


def _is_well(service: ServiceStatus) -> bool:
    return service.state in WELL and service.code is not Code.HEALTH


def _is_new(service: ServiceStatus) -> bool:
    """Whether it is on its way for the first time: one that crashed does not take a READY back."""
    return not (service.restarts or service.last_exit or service.code)


def _find_faults(services: Iterable[ServiceStatus]) -> tuple[ServiceFault, ...]:
    lacking = [s for s in services if s.state != "skipped" and not _is_well(s)]
    return tuple(
        ServiceFault(
            name=service.name,
            state=service.state,
            code=service.code or "",
            reason=service.reason[:MAX_FAULT],
        )
        for service in lacking[:MAX_FAULTS]
    )
