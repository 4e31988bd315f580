"""Whether a service is meant for this device; what is not is skipped, which is no failure."""

from collections.abc import Iterator

from extsloader.model.machine import Machine
from extsloader.model.manifest import Conditions


def explain_unmet(wanted: Conditions, machine: Machine, existing: frozenset[str]) -> str:
    """What is not as wanted, all of it, or "" when the service may run."""
    return "; ".join(_find_unmet(wanted, machine, existing))


def _find_unmet(wanted: Conditions, machine: Machine, existing: frozenset[str]) -> Iterator[str]:
    if wanted.hypervisors and machine.hypervisor not in wanted.hypervisors:
        expected = " or ".join(wanted.hypervisors)
        yield f"it is for hypervisor {expected}, this is {machine.hypervisor}"
    for path in wanted.paths:
        if path not in existing:
            yield f"there is no {path} on this device"
    for word in wanted.command_line:
        if word not in machine.command_line:
            yield f"{word} is not on the kernel's command line"
