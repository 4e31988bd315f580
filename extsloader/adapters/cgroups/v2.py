"""Control groups version 2 (Documentation/admin-guide/cgroup-v2.rst): plain files, one tree."""

from contextlib import suppress
from pathlib import Path
from typing import Final

from extsloader.adapters.cgroups import groups
from extsloader.adapters.cgroups.groups import read_key, read_number, write
from extsloader.model.ids import ServiceName
from extsloader.model.manifest import Resources
from extsloader.model.settings import Limits
from extsloader.model.status import Usage

_PERIOD: Final = 100_000  # microseconds; the kernel's default in cpu.max
_CONTROLLERS: Final = ("cpu", "cpuset", "io", "memory", "pids")


class CgroupsV2:
    """`CgroupPort` over the unified hierarchy."""

    def __init__(self, parent: str, limits: Limits, root: Path) -> None:
        self._root = root
        self._parent = root / parent
        self._limits = limits

    def open_parent(self) -> tuple[str, ...]:
        """Make the parent with its limits, and controllers for the groups in it."""
        with suppress(OSError):
            self._parent.mkdir(exist_ok=True)
        _enable_controllers(self._root)
        _enable_controllers(self._parent)
        return self._limit(self._parent, groups.aggregate(self._limits))

    def close_parent(self) -> None:
        """Raises MachineError(E_BUSY) while a service's group is left."""
        groups.remove_parents([self._parent])

    def create(self, service: ServiceName, resources: Resources) -> tuple[str, ...]:
        """Make the group and set all limits, also if it is there already."""
        group = self._parent / service
        with suppress(OSError):  # each limit then says that there is no group
            group.mkdir(parents=True, exist_ok=True)
        swap = write(group / "memory.swap.max", resources.swap)
        return (
            *self._limit(group, resources),
            *groups.sentences([(f"swap limit {resources.swap}", swap)]),
        )

    def usage(self, service: ServiceName) -> Usage:
        """Memory counts the page cache too; all counters include groups below."""
        group = self._parent / service
        microseconds = read_key(group / "cpu.stat", "usage_usec")
        frozen = read_key(group / "cgroup.events", "frozen")
        return Usage(
            memory=read_number(group / "memory.current"),
            cpu_seconds=None if microseconds is None else microseconds / 1e6,
            pids=read_number(group / "pids.current"),
            oom_kills=read_key(group / "memory.events", "oom_kill"),
            frozen=None if frozen is None else bool(frozen),
        )

    def kill(self, service: ServiceName) -> None:
        """Signal all, the frozen ones too; their deaths follow within moments."""
        group = self._parent / service
        # The kernel's own way knows every fork; it came with 5.14.
        if write(group / "cgroup.kill", 1):
            groups.kill_all([group], group / "pids.max")

    def remove(self, service: ServiceName) -> None:
        """Wait a second at most for killed processes. Raises MachineError(E_BUSY) with the rest."""
        group = self._parent / service
        groups.wait_for_end(groups.processes([group]))
        groups.remove_tree(group)

    def _limit(self, group: Path, resources: Resources) -> tuple[str, ...]:
        memory, pids = resources.memory, resources.pids
        found = _limit_cpu(group, resources.cpu_weight, resources.cpu_quota)
        if memory is not None:
            found.append((f"memory limit {memory}", write(group / "memory.max", memory)))
        if pids is not None:
            found.append((f"pids limit {pids}", write(group / "pids.max", pids)))
        if resources.io_weight is not None:
            reason = self._weigh_io(group, resources.io_weight)
            found.append((f"io weight {resources.io_weight}", reason))
        for word, cap in (("read", resources.io_read_bps), ("write", resources.io_write_bps)):
            if cap is not None:
                reason = groups.cap_disks(group / "io.max", f"{{}} {word[0]}bps={cap}")
                found.append((f"io {word} cap {cap}", reason))
        return groups.sentences(found)

    def _weigh_io(self, group: Path, weight: int) -> str:
        """Two mechanisms have a weight, and neither is on by default (cgroup-v2.rst, "IO")."""
        bfq = group / "io.bfq.weight"
        if bfq.exists() and groups.has_bfq():
            return write(bfq, min(weight, 1000))
        if reason := write(group / "io.weight", weight):
            return reason
        model = self._root / "io.cost.qos"
        on = model.exists() and "enable=1" in model.read_text()
        return "" if on else "no disk uses the bfq scheduler or the io cost model"


def _enable_controllers(group: Path) -> None:
    # One by one: a single unknown name would make the kernel refuse them all. What stays off is
    # told by the limits, whose files are then missing.
    for controller in _CONTROLLERS:
        write(group / "cgroup.subtree_control", f"+{controller}")


def _limit_cpu(group: Path, weight: int, quota: float | None) -> list[tuple[str, str]]:
    found = [(f"cpu weight {weight}", write(group / "cpu.weight", weight))]
    maximum = "max" if quota is None else round(quota * _PERIOD)
    reason = write(group / "cpu.max", f"{maximum} {_PERIOD}")
    if quota is not None:  # nothing is lost where there is no quota
        found.append((f"cpu quota {quota:g}", reason))
    return found
