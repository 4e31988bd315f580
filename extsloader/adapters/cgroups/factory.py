"""Picks the version of control groups that this machine uses."""

from pathlib import Path

from extsloader.adapters.cgroups.v2 import CgroupsV2
from extsloader.model.settings import Limits
from extsloader.ports.machine import CgroupPort


def open_cgroups(parent: str, limits: Limits, root: Path = Path("/sys/fs/cgroup")) -> CgroupPort:
    """The port for this machine; `parent` is the name of the group around all services.

    On a hybrid layout, memory and pids are version 1 and an empty version 2 lies beside them.
    """
    if (root / "cgroup.controllers").exists():
        return CgroupsV2(parent, limits, root)
    # Machines with version 2 need not have cgroupspy.
    from extsloader.adapters.cgroups.v1 import CgroupsV1  # noqa: PLC0415

    return CgroupsV1(parent, limits, root)
