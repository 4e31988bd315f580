"""What Pillar is told, for each of its readers: the table of ADR 28."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extsloader.core.gojson import encode
from extsloader.core.pillar import MARK, MAX_JSON, format_time, show, show_state_file, tell
from extsloader.model.ids import ServiceName
from extsloader.model.pillar import ErrorSeverity, ExtsloaderStatus, PillarState
from extsloader.model.reasons import Code
from extsloader.model.settings import Pillar
from extsloader.model.status import AgentState, ServiceStatus, StatusSnapshot
from tests.fakes.status import READY


def service(name: str, state: str, **fields: Any) -> ServiceStatus:
    return ServiceStatus(name=ServiceName(name), state=state, **fields)


def degraded(*services: ServiceStatus) -> StatusSnapshot:
    return replace(READY, state=AgentState.DEGRADED, reason="not all is well", services=services)


def say(snapshot: StatusSnapshot, elapsed: float = 0.0, partial: str = "ready") -> ExtsloaderStatus:
    return tell(snapshot, Pillar(partial=partial), "IMGA", "/run/extsloader/images/01", elapsed)


STARTING, IS_READY, FAILED = PillarState.STARTING, PillarState.READY, PillarState.FAILED
GOOD = service("a", "ready", essential=True)
BACKING_OFF = service("b", "backing-off", code=Code.EXIT, restarts=1, reason="exit code 1")
PARKED = service("b", "parked", code=Code.EXIT)
NEW = service("b", "creating")
LOST = service("a", "backing-off", code=Code.EXIT, restarts=1, essential=True)


@pytest.mark.parametrize(
    ("state", "early", "late"),
    [
        (AgentState.SEARCHING, STARTING, FAILED),  # a stick may still come before the mark
        (AgentState.VERIFYING, STARTING, STARTING),  # slow, and not at its end
        (AgentState.ACTIVATING, STARTING, STARTING),
        (AgentState.STOPPING, STARTING, STARTING),
        (AgentState.READY, IS_READY, IS_READY),
        (AgentState.FAILED, FAILED, FAILED),
        (AgentState.DISABLED, FAILED, FAILED),
    ],
)
def test_states_of_the_whole(state: AgentState, early: PillarState, late: PillarState) -> None:
    snapshot = replace(READY, state=state, reason="so it is")
    assert (say(snapshot).state, say(snapshot, MARK).state) == (early, late)


@pytest.mark.parametrize(
    ("services", "early", "late", "strict_early", "strict_late"),
    [
        ((GOOD, BACKING_OFF), IS_READY, IS_READY, STARTING, FAILED),
        ((GOOD, PARKED), IS_READY, IS_READY, STARTING, FAILED),
        ((GOOD, PARKED, NEW), STARTING, IS_READY, STARTING, FAILED),
        ((GOOD, service("b", "paused")), IS_READY, IS_READY, STARTING, FAILED),
        ((GOOD, service("b", "ready", code=Code.HEALTH)), IS_READY, IS_READY, STARTING, FAILED),
        ((LOST, service("b", "ready")), STARTING, FAILED, STARTING, FAILED),
        ((BACKING_OFF,), STARTING, FAILED, STARTING, FAILED),  # nothing at all runs
        ((PARKED, replace(PARKED, name=ServiceName("c"))), STARTING, FAILED, STARTING, FAILED),
        ((service("a", "stopped"),), IS_READY, IS_READY, STARTING, FAILED),  # as somebody wants it
    ],
)
def test_some_services_run(
    services: tuple[ServiceStatus, ...],
    early: PillarState,
    late: PillarState,
    strict_early: PillarState,
    strict_late: PillarState,
) -> None:
    snapshot = degraded(*services)
    assert (say(snapshot).state, say(snapshot, MARK).state) == (early, late)
    strict = (say(snapshot, partial="failed").state, say(snapshot, MARK, "failed").state)
    assert strict == (strict_early, strict_late)


NAMES = st.sampled_from(["ready", "parked", "backing-off", "blocked", "creating", "paused"])


@given(st.lists(st.tuples(NAMES, st.booleans())), st.floats(0, 1000), st.sampled_from(AgentState))
def test_no_update_passes_on_an_essential_service_that_should_run_and_does_not(
    services: list[tuple[str, bool]], elapsed: float, state: AgentState
) -> None:
    shown = [service(f"s{n}", name, essential=e) for n, (name, e) in enumerate(services)]
    lost = any(s.essential and s.state not in ("ready", "paused") for s in shown)
    if state is AgentState.READY and lost:
        return  # the whole is never called ready then
    told = say(replace(degraded(*shown), state=state), elapsed)
    assert not (lost and told.state is IS_READY)
    assert (told.severity == 0) or told.error_time


def test_a_damaged_image_never_lets_an_update_pass() -> None:
    assert READY.image
    hurt = replace(degraded(GOOD), image=replace(READY.image, phase="damaged"))
    assert say(hurt).state is FAILED


def test_a_partial_failure_is_ready_with_a_warning_and_says_which() -> None:
    told = say(degraded(GOOD, BACKING_OFF, service("c", "skipped")))
    assert (told.severity, told.reason) == (ErrorSeverity.WARNING, "not all is well")
    fields = show(told)
    assert fields["State"] == 1
    assert fields["Error"] == fields["Reason"] == "not all is well"
    assert fields["ErrorSeverity"] == 2
    assert fields["ErrorTime"] == "2023-11-14T22:12:20Z"
    assert fields["Services"] == {
        "b": {"State": "backing-off", "Code": "E_EXIT", "Reason": "exit code 1"}
    }


def test_while_it_starts_there_is_a_reason_and_no_error() -> None:
    fields = show(say(replace(READY, state=AgentState.SEARCHING, reason="no image found yet")))
    assert (fields["Reason"], fields["Error"], fields["ErrorSeverity"]) == (
        "no image found yet",
        "",
        0,
    )


# Recorded from Go: the file in the order of the struct, the message in the order of the keys.
@pytest.mark.parametrize(
    ("status", "file"),
    [
        (
            ExtsloaderStatus(mount_point="/persist/exts"),
            (
                b'{"State":0,"Reason":"","Partition":"","ImagePath":"","MountPoint":"/persist/exts",'
                b'"Error":"","ErrorTime":"0001-01-01T00:00:00Z","ErrorSeverity":0,'
                b'"ErrorRetryCondition":"","ErrorEntities":null}'
            ),
        ),
        (
            ExtsloaderStatus(
                state=PillarState.READY,
                partition="IMGA",
                image_path="/persist/ext-imga.img",
                mount_point="/persist/exts",
            ),
            (
                b'{"State":1,"Reason":"","Partition":"IMGA","ImagePath":"/persist/ext-imga.img",'
                b'"MountPoint":"/persist/exts","Error":"","ErrorTime":"0001-01-01T00:00:00Z",'
                b'"ErrorSeverity":0,"ErrorRetryCondition":"","ErrorEntities":null}'
            ),
        ),
        (
            ExtsloaderStatus(
                state=PillarState.FAILED,
                reason='mount failed: <x> & "y"',
                partition="IMGB",
                image_path="/persist/ext-imgb.img",
                mount_point="/persist/exts",
                severity=ErrorSeverity.ERROR,
                error_time=1772604367.125,
            ),
            (
                rb'{"State":2,"Reason":"mount failed: \u003cx\u003e \u0026 \"y\"",'
                rb'"Partition":"IMGB",'
                rb'"ImagePath":"/persist/ext-imgb.img","MountPoint":"/persist/exts",'
                rb'"Error":"mount failed: \u003cx\u003e \u0026 \"y\"",'
                rb'"ErrorTime":"2026-03-04T06:06:07.125Z","ErrorSeverity":3,'
                rb'"ErrorRetryCondition":"","ErrorEntities":null}'
            ),
        ),
    ],
)
def test_the_bytes_are_go_s(status: ExtsloaderStatus, file: bytes) -> None:
    assert encode(show(status)) == file


def test_the_recorded_message() -> None:
    status = ExtsloaderStatus(
        state=PillarState.FAILED,
        reason="a<b",
        partition="IMGA",
        mount_point="/persist/exts",
        severity=ErrorSeverity.ERROR,
        error_time=1772600767.5,
    )
    assert encode(show(status), sort=True) == (
        rb'{"Error":"a\u003cb","ErrorEntities":null,"ErrorRetryCondition":"","ErrorSeverity":3,'
        rb'"ErrorTime":"2026-03-04T05:06:07.5Z","ImagePath":"","MountPoint":"/persist/exts",'
        rb'"Partition":"IMGA","Reason":"a\u003cb","State":2}'
    )


@pytest.mark.parametrize(
    ("wall", "text"),
    [
        (1_700_000_000.0, "2023-11-14T22:13:20Z"),
        (1_700_000_000.25, "2023-11-14T22:13:20.25Z"),
        (0.0, "0001-01-01T00:00:00Z"),
        (-1e18, "0001-01-01T00:00:00Z"),
        (1e18, "0001-01-01T00:00:00Z"),
    ],
)
def test_times(wall: float, text: str) -> None:
    assert format_time(wall) == text


@pytest.mark.parametrize("letter", ["<", "\U0001f600", "x", "\udcff"])
def test_what_is_told_fits_into_a_packet_whatever_services_say(letter: str) -> None:
    bad = replace(BACKING_OFF, reason=letter * 9999)
    many = [replace(bad, name=ServiceName(f"b{n}")) for n in range(500)]
    told = say(replace(degraded(GOOD, *many), reason=letter * 9999))
    assert told.services
    assert len(encode(show(told))) <= MAX_JSON


def test_the_state_file_leaves_out_what_is_empty() -> None:
    assert show_state_file(say(READY), 1_700_000_000.0) == {
        "state": "ready",
        "partition": "IMGA",
        "imagePath": "/dev/sdb1",
        "mountPoint": "/run/extsloader/images/01",
        "updatedAt": "2023-11-14T22:13:20Z",
    }
    assert show_state_file(ExtsloaderStatus(reason="why"), 1_700_000_000.0) == {
        "state": "starting",
        "reason": "why",
        "updatedAt": "2023-11-14T22:13:20Z",
    }
