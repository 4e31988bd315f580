from pathlib import Path

from extsloader.adapters.cgroups.factory import open_cgroups
from extsloader.adapters.cgroups.v1 import CgroupsV1
from extsloader.adapters.cgroups.v2 import CgroupsV2
from extsloader.model.settings import Limits


def test_a_unified_tree_is_version_2(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    assert isinstance(open_cgroups("extst", Limits(), tmp_path), CgroupsV2)


def test_a_hybrid_tree_is_version_1_although_it_holds_a_version_2(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / "unified").mkdir()
    (tmp_path / "unified/cgroup.controllers").write_text("hugetlb\n")
    assert isinstance(open_cgroups("extst", Limits(), tmp_path), CgroupsV1)
