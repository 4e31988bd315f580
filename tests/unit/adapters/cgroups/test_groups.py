import os
import signal
from pathlib import Path

import pytest

from extsloader.adapters.cgroups.groups import (
    aggregate,
    disks,
    has_bfq,
    kill_all,
    processes,
    read_key,
    read_number,
    remove_parents,
    remove_tree,
    sentences,
    write,
)
from extsloader.model.errors import MachineError
from extsloader.model.reasons import Code
from extsloader.model.settings import Limits


def test_a_limit_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    assert write(tmp_path / "pids.max", 1) == "this kernel has no pids.max"
    assert write(tmp_path / "gone/pids.max", 1) == "there is no such group"
    (tmp_path / "pids.max").mkdir()
    assert "the kernel refused 1 in pids.max: Is a directory" in write(tmp_path / "pids.max", 1)


def test_only_refused_limits_become_sentences() -> None:
    assert sentences([("io weight 200", "this kernel has no io.weight"), ("pids limit 1", "")]) == (
        "io weight 200 not applied: this kernel has no io.weight",
    )


def test_numbers_and_keys_are_none_where_the_kernel_says_nothing(tmp_path: Path) -> None:
    file = tmp_path / "file"
    assert read_number(file) is read_key(file, "oom_kill") is None
    file.write_text("max\n")
    assert read_number(file) is None
    file.write_text("oom 3\noom_kill 2\noom_group_kill 7\n")
    assert read_key(file, "oom_kill") == 2
    assert read_key(file, "missing") is None


def test_processes_of_groups_below_count_too(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/cgroup.procs").write_text("1\n2\n")
    (tmp_path / "a/b/cgroup.procs").write_text("3\n")
    assert processes([tmp_path / "a", tmp_path / "missing"]) == {1, 2, 3}


def test_nothing_in_the_group_can_fork_while_it_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = []

    def kill(pid: int, number: int) -> None:
        killed.append((pid, number, (tmp_path / "pids.max").read_text()))
        (tmp_path / "cgroup.procs").write_text("11\n12\n")  # 12 was being forked

    monkeypatch.setattr(os, "kill", kill)
    (tmp_path / "cgroup.procs").write_text("11\n")
    (tmp_path / "pids.max").write_text("16\n")
    kill_all([tmp_path], tmp_path / "pids.max")
    assert killed == [(11, signal.SIGKILL, "0"), (12, signal.SIGKILL, "0")]
    assert (tmp_path / "pids.max").read_text() == "16"


def test_groups_are_removed_children_first_and_twice_is_once(tmp_path: Path) -> None:
    (tmp_path / "a/b/c").mkdir(parents=True)
    remove_tree(tmp_path / "a")
    remove_tree(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_group_that_cannot_be_removed_names_its_processes(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").write_text("12\n7\n")
    with pytest.raises(MachineError, match="processes in it: 7, 12") as refused:
        remove_tree(tmp_path)
    assert refused.value.problem.code is Code.BUSY


def test_a_parent_with_services_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "p/web").mkdir(parents=True)
    with pytest.raises(MachineError, match="it still holds web"):
        remove_parents([tmp_path / "p"])
    assert (tmp_path / "p/web").exists()


def test_all_services_together_get_three_quarters_of_memory_if_nobody_says_otherwise() -> None:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert aggregate(Limits()).memory == total * 3 // 4
    given = aggregate(Limits(memory=5 << 20, pids=7, cpu_weight=9))
    assert (given.memory, given.pids, given.cpu_weight) == (5 << 20, 7, 9)


def test_caps_go_to_disks_with_a_medium_only(tmp_path: Path) -> None:
    for name, size, number in (("sda", 2048, "8:0"), ("loop0", 0, "7:0"), ("vda", 8, "254:0")):
        (tmp_path / name / "queue").mkdir(parents=True)
        (tmp_path / name / "size").write_text(f"{size}\n")
        (tmp_path / name / "dev").write_text(f"{number}\n")
        (tmp_path / name / "queue/scheduler").write_text("[none] bfq\n")
    assert disks(tmp_path) == ["8:0", "254:0"]
    assert not has_bfq(tmp_path)
    (tmp_path / "sda/queue/scheduler").write_text("none [bfq]\n")
    assert has_bfq(tmp_path)
