"""Control groups version 1 (Documentation/admin-guide/cgroup-v1/).

cgroupspy sets and reads cpu, cpuacct, cpuset and memory. Its controllers for pids and freezer do
not exist and its block throttle cannot be written: those are plain file writes here (ADR 0007).
"""

from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from cgroupspy.nodes import Node

from extsloader.adapters.cgroups import groups
from extsloader.adapters.cgroups.groups import write
from extsloader.model.ids import ServiceName
from extsloader.model.manifest import Resources
from extsloader.model.settings import Limits
from extsloader.model.status import Usage

_PERIOD: Final = 100_000  # microseconds; the kernel's default cfs_period_us
# The default of cpu.shares is 1024 and that of cpu.weight 100: keep shares in that proportion.
_SHARES_PER_WEIGHT: Final = 10.24
_LEAST_SHARES: Final = 2


class CgroupsV1:
    """`CgroupPort` over hierarchies that are mounted side by side below one directory."""

    def __init__(self, parent: str, limits: Limits, root: Path) -> None:
        self._root = root
        self._parent = parent
        self._limits = limits
        # Those mounted together ("cpu,cpuacct") appear again by the links with their single names,
        # which does no harm: everything here can be done twice.
        self._hierarchies = [path.parent for path in sorted(root.glob("*/cgroup.procs"))]

    def open_parent(self) -> tuple[str, ...]:
        """Make the parent in every hierarchy, with its limits."""
        self._make(self._parent)
        self._account_children()
        return self._limit(self._parent, groups.aggregate(self._limits), swap=None)

    def close_parent(self) -> None:
        """Raises MachineError(E_BUSY) while a service's group is left."""
        groups.remove_parents(self._directories(self._parent))

    def create(self, service: ServiceName, resources: Resources) -> tuple[str, ...]:
        """Make the group in every hierarchy and set all limits, also if it is there already."""
        group = f"{self._parent}/{service}"
        self._make(group)
        return self._limit(group, resources, resources.swap)

    def usage(self, service: ServiceName) -> Usage:
        """Memory counts the page cache too; `oom_kills` counts victims in and below the group."""
        group = f"{self._parent}/{service}"
        nanoseconds = self._get(group, "cpuacct", "usage")
        tree = groups.tree(self._root / "memory" / group)
        counts = [groups.read_key(one / "memory.oom_control", "oom_kill") for one in tree]
        kills = [count for count in counts if count is not None]
        return Usage(
            memory=self._get(group, "memory", "usage_in_bytes"),
            cpu_seconds=None if nanoseconds is None else nanoseconds / 1e9,
            pids=groups.read_number(self._root / "pids" / group / "pids.current"),
            oom_kills=sum(kills) if kills else None,
            frozen=self._is_frozen(group),
        )

    def _is_frozen(self, group: str) -> bool | None:
        """Also while it is being frozen."""
        with suppress(OSError):
            state = (self._root / "freezer" / group / "freezer.state").read_text()
            return state.strip() != "THAWED"
        return None

    def kill(self, service: ServiceName) -> None:
        """Signal all; their deaths follow within moments."""
        group = f"{self._parent}/{service}"
        groups.kill_all(self._directories(group), self._root / "pids" / group / "pids.max")
        # A frozen process dies only when it is thawed (freezer-subsystem.rst).
        for one in groups.tree(self._root / "freezer" / group):
            write(one / "freezer.state", "THAWED")

    def remove(self, service: ServiceName) -> None:
        """Wait a second at most for killed processes. Raises MachineError(E_BUSY) with the rest."""
        directories = self._directories(f"{self._parent}/{service}")
        groups.wait_for_end(groups.processes(directories))
        for directory in directories:
            groups.remove_tree(directory)

    def _directories(self, group: str) -> list[Path]:
        """The group in every hierarchy, also in those that only the OCI runtime made."""
        return [path / group for path in self._hierarchies]

    def _make(self, group: str) -> None:
        for directory in self._directories(group):
            with suppress(OSError):  # each limit then says that its file is missing
                directory.mkdir(parents=True, exist_ok=True)

    def _limit(self, group: str, resources: Resources, swap: int | None) -> tuple[str, ...]:
        processors = ("the parent's processors", self._inherit_cpuset(group))
        memory, cpu = self._memory(group, resources.memory, swap), self._cpu(group, resources)
        pids, io = self._pids(group, resources.pids), self._io(group, resources)
        return groups.sentences((processors, *memory, *cpu, *pids, *io))

    def _account_children(self) -> None:
        # Without it a limit of the parent would not count what its children use. Kernels since
        # 5.11 have nothing else; older ones refuse the change once there are children.
        file = self._root / "memory" / self._parent / "memory.use_hierarchy"
        if groups.read_number(file) == 0:
            write(file, 1)

    def _node(self, group: str, controller: str) -> Any:
        # A Tree of cgroupspy would walk all groups of the machine; a chain of nodes costs nothing.
        node = Node(str(self._root))
        for name in (controller, *group.split("/")):
            node = Node(name, parent=node)
        return node

    def _get(self, group: str, controller: str, attribute: str) -> Any:
        with suppress(OSError, ValueError):
            return getattr(self._node(group, controller).controller, attribute)
        return None

    def _set(self, group: str, controller: str, attribute: str, value: object) -> str:
        handle = self._node(group, controller).controller
        name = handle.get_interface(attribute).filename.decode()
        if reason := groups.missing(self._root / controller / group / name):
            return reason
        try:
            setattr(handle, attribute, value)
        except OSError as error:
            return f"the kernel refused {value} in {name}: {error.strerror}"
        return ""

    def _inherit_cpuset(self, group: str) -> str:
        """A fresh cpuset is empty, and nothing can join an empty one (cpusets.rst, 2.3)."""
        node = self._node(group, "cpuset")
        with suppress(FileNotFoundError):  # no cpuset controller: all processors, as wanted
            for attribute in ("cpus", "mems"):
                if not getattr(node.controller, attribute):
                    inherited = getattr(node.parent.controller, attribute)
                    if reason := self._set(group, "cpuset", attribute, inherited):
                        return reason
        return ""

    def _memory(self, group: str, memory: int | None, swap: int | None) -> list[tuple[str, str]]:
        if memory is None:
            return []
        wanted = [(f"memory limit {memory}", "limit_in_bytes", memory)]
        if swap is not None:
            wanted.append((f"swap limit {swap}", "memsw_limit_in_bytes", memory + swap))
            # memsw may never be the smaller one (memory.rst, 2.4): when it grows, it goes first.
            if memory + swap >= (self._get(group, "memory", "memsw_limit_in_bytes") or 0):
                wanted.reverse()
        return [(text, self._set(group, "memory", name, value)) for text, name, value in wanted]

    def _cpu(self, group: str, resources: Resources) -> tuple[tuple[str, str], ...]:
        weight, quota = resources.cpu_weight, resources.cpu_quota
        shares = max(_LEAST_SHARES, round(weight * _SHARES_PER_WEIGHT))
        weighted = (f"cpu weight {weight}", self._set(group, "cpu", "shares", shares))
        if quota is None:
            self._set(group, "cpu", "cfs_quota_us", -1)  # nothing is lost where there is no quota
            return (weighted,)
        reason = self._set(group, "cpu", "cfs_period_us", _PERIOD) or self._set(
            group, "cpu", "cfs_quota_us", round(quota * _PERIOD)
        )
        return weighted, (f"cpu quota {quota:g}", reason)

    def _pids(self, group: str, pids: int | None) -> tuple[tuple[str, str], ...]:
        if pids is None:
            return ()
        return ((f"pids limit {pids}", write(self._root / "pids" / group / "pids.max", pids)),)

    def _io(self, group: str, resources: Resources) -> tuple[tuple[str, str], ...]:
        directory = self._root / "blkio" / group
        found = []
        if resources.io_weight is not None:
            reason = _weigh_io(directory, resources.io_weight)
            found.append((f"io weight {resources.io_weight}", reason))
        for word, cap in (("read", resources.io_read_bps), ("write", resources.io_write_bps)):
            if cap is not None:
                file = directory / f"blkio.throttle.{word}_bps_device"
                found.append((f"io {word} cap {cap}", groups.cap_disks(file, f"{{}} {cap}")))
        return tuple(found)


def _weigh_io(directory: Path, weight: int) -> str:
    if (directory / "blkio.weight").exists():  # CFQ, kernels before 5.0
        return write(directory / "blkio.weight", min(max(weight * 5, 10), 1000))
    bfq = directory / "blkio.bfq.weight"
    if not bfq.exists():
        return "this kernel has no blkio.weight"
    if not groups.has_bfq():
        return "no disk uses the bfq scheduler"
    return write(bfq, min(weight, 1000))
