"""Programs fail with words that an operator can use."""

import pytest

from extsloader.adapters.mounts import programs
from extsloader.model.errors import MachineError
from extsloader.model.reasons import Code


def test_what_a_program_prints_is_its_result() -> None:
    assert programs.run("ask", "sh", "-c", 'echo "$LC_ALL"; cat') == "C\n"


def test_all_complaints_of_a_program_are_told() -> None:
    with pytest.raises(MachineError) as failed:
        programs.run("ask", "sh", "-c", "echo no >&2; echo never >&2; exit 4", hint="look")
    problem = failed.value.problem
    assert problem.message == "cannot ask: sh ended with 4: no; never"
    assert (problem.code, problem.hint) == (Code.MOUNT, "look")


def test_a_program_that_is_missing_is_named() -> None:
    with pytest.raises(MachineError, match="cannot ask: there is no program extst-none"):
        programs.run("ask", "extst-none")


def test_a_program_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_DEADLINE", 0.1)
    with pytest.raises(MachineError, match="sleep took longer than") as late:
        programs.run("ask", "sleep", "60")
    assert late.value.problem.code is Code.TIMEOUT


def test_without_udevd_there_is_nothing_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_ENVIRONMENT", {"PATH": "/extst-none"})
    programs.settle_udev()
