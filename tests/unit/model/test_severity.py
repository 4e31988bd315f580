"""How bad a state is."""

import pytest

from extsloader.model.control import Result
from extsloader.model.severity import ERROR, GOOD, WARNING, Severity, severity
from extsloader.model.status import AgentState
from extsloader.model.world import CandidatePhase, ImagePhase, ServicePhase


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("ready", Severity.GOOD),
        ("backing-off", Severity.WARNING),
        ("parked", Severity.ERROR),
        ("blocked", Severity.PASSING),
        ("never heard of", Severity.PASSING),
    ],
)
def test_every_state_has_a_severity(state: str, expected: Severity) -> None:
    assert severity(state) is expected


def test_the_lists_name_states_that_exist_and_each_once() -> None:
    states = {*AgentState, *CandidatePhase, *ImagePhase, *ServicePhase, *Result, "damaged"}
    states |= {"skipped", "open", "deferred"}
    assert states >= GOOD | WARNING | ERROR
    assert len(GOOD) + len(WARNING) + len(ERROR) == len(GOOD | WARNING | ERROR)
