"""Families of errors, told apart by who can mend them."""

from extsloader.model.reasons import Code, Problem


class ExtsloaderError(Exception):
    """The base: everything that this program raises on purpose."""


class ImageRefusedError(ExtsloaderError):
    """The candidate's fault: it is refused, everything else goes on."""

    def __init__(self, code: Code, message: str, hint: str = "") -> None:
        super().__init__(f"{code}: {message}")
        self.problem = Problem(code, message, hint)


class MachineError(ExtsloaderError):
    """A tool or the kernel said no; `stage` is the step that failed, in a user's words."""

    def __init__(self, code: Code, stage: str, reason: str, hint: str = "") -> None:
        message = f"cannot {stage}: {reason}"
        super().__init__(f"{code}: {message}")
        self.problem = Problem(code, message, hint)


class SettingsError(ExtsloaderError):
    """The configuration is wrong; all of its problems at once."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class IllegalTransitionError(ExtsloaderError):
    """Our own bug: a state machine was given an event that its state does not know."""
