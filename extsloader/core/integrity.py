"""What stands between a mounted image and a disk that changes under it."""

from extsloader.model.machine import Machine
from extsloader.model.settings import Settings


def uses_verity(settings: Settings, machine: Machine) -> bool:
    """Whether each read of the image is checked by dm-verity.

    When it was asked for and cannot be had, mounting fails: nothing weaker takes its place.
    """
    if settings.integrity == "auto":
        return not machine.no_verity
    return settings.integrity == "verity"


def name_integrity(settings: Settings, machine: Machine) -> str:
    """One word for the status."""
    return "verity" if uses_verity(settings, machine) else "store"


def explain_integrity(settings: Settings, machine: Machine) -> str:
    """Why it is this one, for the log."""
    if settings.integrity == "store":
        return "configured"
    reason = machine.no_verity or "this device has dm-verity"
    return reason if settings.integrity == "auto" else f"configured; {reason}"
