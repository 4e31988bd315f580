"""Version 2 on plain files that look like the kernel's."""

from pathlib import Path

import pytest

from extsloader.adapters.cgroups import groups
from extsloader.adapters.cgroups.v2 import CgroupsV2
from extsloader.model.ids import ServiceName
from extsloader.model.manifest import Resources
from extsloader.model.settings import Limits
from extsloader.model.status import Usage

WEB = ServiceName("web")
FILES = (
    "cgroup.kill cgroup.procs cgroup.subtree_control cpu.max cpu.weight "
    "io.max io.weight memory.max memory.swap.max pids.max"
)


@pytest.fixture
def group(tmp_path: Path) -> Path:
    group = tmp_path / "extst/web"
    group.mkdir(parents=True)
    for directory in (tmp_path, group.parent, group):
        for name in FILES.split():
            (directory / name).touch()
    return group


@pytest.fixture
def cgroups(tmp_path: Path) -> CgroupsV2:
    return CgroupsV2("extst", Limits(memory=1 << 30, pids=512, cpu_weight=50), tmp_path)


def read(group: Path, *names: str) -> list[str]:
    return [(group / name).read_text() for name in names]


def test_the_parent_caps_memory_and_processes_but_not_swap(cgroups: CgroupsV2, group: Path) -> None:
    assert cgroups.open_parent() == ()
    found = read(group.parent, "memory.max", "pids.max", "cpu.weight", "cpu.max")
    assert found == [str(1 << 30), "512", "50", "max 100000"]
    assert read(group.parent, "memory.swap.max") == [""]


def test_controllers_are_passed_down_to_the_services(
    cgroups: CgroupsV2, group: Path, tmp_path: Path
) -> None:
    cgroups.open_parent()
    for directory in (tmp_path, group.parent):  # a plain file shows the last one written
        assert read(directory, "cgroup.subtree_control") == ["+pids"]


def test_every_limit_has_its_file(
    cgroups: CgroupsV2, group: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "disks", lambda: ["8:0"])
    (tmp_path / "io.cost.qos").write_text("8:0 enable=1 ctrl=auto\n")
    resources = Resources(
        memory=64 << 20,
        swap=4096,
        cpu_weight=200,
        cpu_quota=1.5,
        pids=32,
        io_weight=300,
        io_write_bps=1000,
    )
    assert cgroups.create(WEB, resources) == ()
    assert cgroups.create(WEB, resources) == ()
    names = ("memory.max", "memory.swap.max", "cpu.weight", "cpu.max", "pids.max")
    assert read(group, *names, "io.weight", "io.max") == [
        str(64 << 20),
        "4096",
        "200",
        "150000 100000",
        "32",
        "300",
        "8:0 wbps=1000",
    ]


def test_what_the_kernel_does_not_have_is_said_in_sentences(
    cgroups: CgroupsV2, group: Path
) -> None:
    (group / "memory.swap.max").unlink()
    (group / "cpu.max").unlink()
    found = cgroups.create(WEB, Resources(memory=4096, cpu_quota=0.5, io_weight=200))
    assert found == (
        "cpu quota 0.5 not applied: this kernel has no cpu.max",
        "io weight 200 not applied: no disk uses the bfq scheduler or the io cost model",
        "swap limit 0 not applied: this kernel has no memory.swap.max",
    )


def test_a_missing_cpu_controller_is_no_loss_where_no_quota_is_wanted(
    cgroups: CgroupsV2, group: Path
) -> None:
    (group / "cpu.max").unlink()
    assert cgroups.create(WEB, Resources()) == ()


def test_usage_is_read_from_the_four_controllers(cgroups: CgroupsV2, group: Path) -> None:
    (group / "memory.current").write_text("4096\n")
    (group / "pids.current").write_text("3\n")
    (group / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1\n")
    (group / "memory.events").write_text("low 0\noom 2\noom_kill 1\n")
    (group / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    used = Usage(memory=4096, cpu_seconds=1.5, pids=3, oom_kills=1, frozen=True)
    assert cgroups.usage(WEB) == used


def test_without_a_group_nothing_is_known_and_nothing_to_do(cgroups: CgroupsV2) -> None:
    gone = ServiceName("gone")
    assert cgroups.usage(gone) == Usage()
    cgroups.kill(gone)
    cgroups.remove(gone)
    cgroups.close_parent()


def test_killing_is_left_to_the_kernel_where_it_can(cgroups: CgroupsV2, group: Path) -> None:
    cgroups.kill(WEB)
    assert read(group, "cgroup.kill", "pids.max") == ["1", ""]
