"""Version 1 on plain files that look like the kernel's, where the real kernel here differs."""

from pathlib import Path

import pytest

from extsloader.adapters.cgroups import groups
from extsloader.adapters.cgroups.v1 import CgroupsV1
from extsloader.model.ids import ServiceName
from extsloader.model.manifest import Resources
from extsloader.model.settings import Limits
from extsloader.model.status import Usage

WEB = ServiceName("web")
FILES = {
    "memory": "memory.limit_in_bytes memory.memsw.limit_in_bytes memory.use_hierarchy",
    "cpu,cpuacct": "cpu.shares cpu.cfs_period_us cpu.cfs_quota_us",
    "pids": "pids.max",
    "blkio": "blkio.weight",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for controller, names in FILES.items():
        for group in ("", "extst", "extst/web"):
            directory = tmp_path / controller / group
            directory.mkdir(parents=True)
            for name in (*names.split(), "cgroup.procs"):
                (directory / name).write_text("0" if "limit" in name or "hier" in name else "")
    (tmp_path / "cpu").symlink_to("cpu,cpuacct")
    (tmp_path / "cpuacct").symlink_to("cpu,cpuacct")
    return tmp_path


@pytest.fixture
def cgroups(root: Path) -> CgroupsV1:
    return CgroupsV1("extst", Limits(memory=1 << 30), root)


def test_old_kernels_are_told_to_count_children(cgroups: CgroupsV1, root: Path) -> None:
    assert cgroups.open_parent() == ()
    assert (root / "memory/extst/memory.use_hierarchy").read_text() == "1"
    assert (root / "memory/extst/memory.memsw.limit_in_bytes").read_text() == "0"


def test_weights_keep_their_proportion_to_the_kernels_defaults(
    cgroups: CgroupsV1, root: Path
) -> None:
    for weight, shares, io in ((100, "1024", "500"), (1, "10", "10"), (10000, "102400", "1000")):
        assert cgroups.create(WEB, Resources(cpu_weight=weight, io_weight=weight)) == ()
        assert (root / "cpu/extst/web/cpu.shares").read_text() == shares
        assert (root / "blkio/extst/web/blkio.weight").read_text() == io


def test_what_the_kernel_does_not_have_is_said_in_sentences(
    cgroups: CgroupsV1, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "disks", lambda: ["8:0"])
    (root / "memory/extst/web/memory.memsw.limit_in_bytes").unlink()
    (root / "blkio/extst/web/blkio.weight").unlink()
    (root / "cpu/extst/web/cpu.cfs_quota_us").unlink()
    resources = Resources(memory=4096, cpu_quota=0.5, io_weight=200, io_read_bps=9)
    assert cgroups.create(WEB, resources) == (
        "swap limit 0 not applied: this kernel has no memory.memsw.limit_in_bytes",
        "cpu quota 0.5 not applied: this kernel has no cpu.cfs_quota_us",
        "io weight 200 not applied: this kernel has no blkio.weight",
        "io read cap 9 not applied: this kernel has no blkio.throttle.read_bps_device",
    )


def test_a_machine_without_controllers_grants_nothing_and_raises_nothing(tmp_path: Path) -> None:
    cgroups = CgroupsV1("extst", Limits(), tmp_path)
    assert len(cgroups.open_parent()) == 3
    assert cgroups.create(WEB, Resources(pids=5)) == (
        "cpu weight 100 not applied: there is no such group",
        "pids limit 5 not applied: there is no such group",
    )
    assert cgroups.usage(WEB) == Usage()
    cgroups.kill(WEB)
    cgroups.remove(WEB)
    cgroups.close_parent()


def test_controllers_mounted_together_are_one_hierarchy(cgroups: CgroupsV1, root: Path) -> None:
    cgroups.create(ServiceName("other"), Resources())
    made = sorted(path.parent.parent.name for path in root.glob("*/extst/other"))
    assert sorted(set(made)) == ["blkio", "cpu", "cpu,cpuacct", "cpuacct", "memory", "pids"]
    cgroups.remove(ServiceName("other"))
    assert list(root.glob("*/extst/other")) == []
