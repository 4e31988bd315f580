"""Errors carry the problem that a user reads."""

from extsloader.model.errors import ImageRefusedError, MachineError, SettingsError
from extsloader.model.reasons import Code, Problem


def test_a_refusal_carries_its_problem() -> None:
    error = ImageRefusedError(Code.DIGEST, "cannot use it: other bytes", "copy it again")
    assert error.problem == Problem(Code.DIGEST, "cannot use it: other bytes", "copy it again")
    assert str(error) == "E_DIGEST: cannot use it: other bytes"


def test_an_error_of_the_machine_names_the_step_that_failed() -> None:
    error = MachineError(Code.MOUNT, "mount /dev/loop0", "device busy")
    assert error.problem == Problem(Code.MOUNT, "cannot mount /dev/loop0: device busy")
    assert str(error) == "E_MOUNT: cannot mount /dev/loop0: device busy"


def test_wrong_settings_are_told_all_at_once() -> None:
    error = SettingsError(("unknown key a", "b is no number"))
    assert error.problems == ("unknown key a", "b is no number")
    assert str(error) == "unknown key a\nb is no number"
