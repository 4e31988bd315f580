"""Control groups of the real kernel: version 1 for all limits, version 2 for what it holds here."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from extsloader.adapters.cgroups import groups
from extsloader.adapters.cgroups.v1 import CgroupsV1
from extsloader.adapters.cgroups.v2 import CgroupsV2
from extsloader.model.errors import MachineError
from extsloader.model.ids import ServiceName
from extsloader.model.manifest import Resources
from extsloader.model.reasons import Code
from extsloader.model.settings import Limits
from extsloader.model.status import Usage

ROOT = Path("/sys/fs/cgroup")
UNIFIED = ROOT / "unified"
PARENT = f"extst-{os.getpid()}"
WEB = ServiceName("web")
SMALL = Resources(memory=32 << 20, pids=16, cpu_quota=0.5)

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not (ROOT / "memory").exists(), reason="needs cgroup version 1"),
]


@pytest.fixture
def v1() -> Iterator[CgroupsV1]:
    cgroups = CgroupsV1(PARENT, Limits(memory=1 << 30, pids=512), ROOT)
    assert cgroups.open_parent() == ()
    yield cgroups
    finish(cgroups, [path / PARENT for path in ROOT.iterdir()])


@pytest.fixture
def v2() -> Iterator[CgroupsV2]:
    if not UNIFIED.exists():
        pytest.skip("needs the hybrid layout")
    cgroups = CgroupsV2(PARENT, Limits(), UNIFIED)
    cgroups.open_parent()
    yield cgroups
    finish(cgroups, [UNIFIED / PARENT])


def finish(cgroups: CgroupsV1 | CgroupsV2, directories: list[Path]) -> None:
    """Leave nothing behind, also after a failure."""
    cgroups.kill(WEB)
    cgroups.remove(WEB)
    cgroups.close_parent()
    assert not any(path.exists() for path in directories)


@contextmanager
def running(*argv: str, group: str = f"{PARENT}/web") -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits in all hierarchies of the group for a line before it runs `argv`."""
    waiting = ("/bin/sh", "-c", 'read line; exec "$@"', "sh", *argv)
    with subprocess.Popen(waiting, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        for procs in ROOT.glob(f"*/{group}/cgroup.procs"):
            procs.write_text(str(process.pid))
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        try:
            yield process
        finally:
            process.kill()
            groups.write(ROOT / "freezer" / group / "freezer.state", "THAWED")  # or it never ends


def value(controller: str, name: str, group: str = f"{PARENT}/web") -> str:
    return (ROOT / controller / group / name).read_text().strip()


# Limits


def test_all_limits_are_set_and_again_with_other_values(v1: CgroupsV1) -> None:
    for memory in (64 << 20, 128 << 20, 32 << 20):  # the kernel refuses the wrong order
        limits = Resources(memory=memory, swap=4096, pids=20, cpu_quota=0.25, cpu_weight=50)
        assert v1.create(WEB, limits) == ()
        assert value("memory", "memory.limit_in_bytes") == str(memory)
        assert value("memory", "memory.memsw.limit_in_bytes") == str(memory + 4096)
    assert value("pids", "pids.max") == "20"
    assert value("cpu", "cpu.shares") == "512"
    assert value("cpu", "cpu.cfs_quota_us") == "25000"
    assert value("cpuset", "cpuset.cpus") == value("cpuset", "cpuset.cpus", "")
    assert v1.create(WEB, Resources(memory=memory, pids=20)) == ()
    assert value("cpu", "cpu.cfs_quota_us") == "-1"


def test_the_parent_caps_all_services_together(v1: CgroupsV1) -> None:
    assert value("memory", "memory.limit_in_bytes", PARENT) == str(1 << 30)
    assert value("memory", "memory.use_hierarchy", PARENT) == "1"
    assert value("pids", "pids.max", PARENT) == "512"
    assert v1.open_parent() == ()


def test_a_cap_on_input_is_set_for_each_disk(v1: CgroupsV1) -> None:
    assert v1.create(WEB, Resources(io_read_bps=1 << 20, io_write_bps=1 << 21)) == ()
    for word, cap in (("read", 1 << 20), ("write", 1 << 21)):
        found = value("blkio", f"blkio.throttle.{word}_bps_device").splitlines()
        assert sorted(found) == sorted(f"{disk} {cap}" for disk in groups.disks())


def test_a_limit_the_kernel_refuses_is_a_sentence(v1: CgroupsV1) -> None:
    (sentence,) = v1.create(WEB, Resources(cpu_quota=1e9))
    assert sentence.startswith("cpu quota 1e+09 not applied: the kernel refused")


def test_the_runtime_keeps_the_limits_it_finds(v1: CgroupsV1, tmp_path: Path) -> None:
    busybox = shutil.which("busybox")
    if busybox is None or shutil.which("runc") is None:
        pytest.skip("needs runc and a static busybox")
    (tmp_path / "rootfs/proc").mkdir(parents=True)
    shutil.copy(busybox, tmp_path / "rootfs/busybox")
    spec = {
        "ociVersion": "1.0.2",
        "process": {"args": ["/busybox", "sleep", "60"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
        "root": {"path": "rootfs"},
        "linux": {
            "cgroupsPath": f"/{PARENT}/web",
            "namespaces": [{"type": "pid"}, {"type": "mount"}],
        },
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
    }
    (tmp_path / "config.json").write_text(json.dumps(spec))
    v1.create(WEB, SMALL)
    before = limits()
    runc = ["runc", "--root", str(tmp_path / "runc")]
    quiet = subprocess.DEVNULL
    create = [*runc, "create", "--bundle", str(tmp_path), f"{PARENT}-web"]
    subprocess.run(create, check=True, stdin=quiet, stdout=quiet, stderr=quiet, timeout=30)
    try:
        assert v1.usage(WEB).pids is not None
        assert limits() == before
    finally:
        subprocess.run([*runc, "delete", "--force", f"{PARENT}-web"], check=True, timeout=30)


def limits() -> dict[str, str]:
    names = (
        "memory/memory.limit_in_bytes",
        "memory/memory.memsw.limit_in_bytes",
        "pids/pids.max",
        "cpu/cpu.shares",
        "cpu/cpu.cfs_quota_us",
        "cpuset/cpuset.cpus",
    )
    return {name: value(*name.split("/")) for name in names}


# Usage


def test_usage_is_that_of_the_group(v1: CgroupsV1) -> None:
    v1.create(WEB, SMALL)
    with running(sys.executable, "-c", "print(sum(range(10**6)), flush=True); input()") as process:
        assert process.stdout is not None
        process.stdout.readline()
        usage = v1.usage(WEB)
    assert usage.pids == 1
    assert usage.memory is not None
    assert 1 << 20 < usage.memory <= 32 << 20
    assert usage.cpu_seconds is not None
    assert 0.001 < usage.cpu_seconds < 30
    assert usage.oom_kills == 0


def test_without_a_group_nothing_is_known_and_nothing_to_do(v1: CgroupsV1) -> None:
    assert v1.usage(WEB) == Usage()
    v1.kill(WEB)
    v1.remove(WEB)


def test_a_victim_of_the_memory_limit_is_counted(v1: CgroupsV1) -> None:
    v1.create(WEB, SMALL)
    with running(sys.executable, "-c", "bytearray(64 << 20)") as process:
        assert process.wait(30) == -9
    assert v1.usage(WEB).oom_kills == 1


def test_a_victim_in_a_group_of_the_services_own_is_counted_too(v1: CgroupsV1) -> None:
    v1.create(WEB, SMALL)
    (ROOT / "memory" / PARENT / "web/own").mkdir()
    with running(sys.executable, "-c", "bytearray(64 << 20)") as process:
        (ROOT / "memory" / PARENT / "web/own/cgroup.procs").write_text(str(process.pid))
        assert process.wait(30) == -9
    assert v1.usage(WEB).oom_kills == 1


# The end

BOMB = """
import os
while True:
    try:
        os.fork()
    except OSError:
        os.write(1, b"x")
"""


def test_a_fork_bomb_stays_bounded_and_nothing_survives_the_kill(v1: CgroupsV1) -> None:
    v1.create(WEB, SMALL)
    with running(sys.executable, "-c", BOMB) as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"x"  # the limit is reached
        assert v1.usage(WEB).pids == 16
        v1.kill(WEB)
        assert value("pids", "pids.max") == "16"
        v1.remove(WEB)
    assert list(ROOT.glob(f"*/{PARENT}/web")) == []


def test_a_frozen_service_dies_too(v1: CgroupsV1) -> None:
    v1.create(WEB, SMALL)
    with running("sleep", "60") as process:
        (ROOT / "freezer" / PARENT / "web/freezer.state").write_text("FROZEN")
        v1.kill(WEB)
        assert process.wait(10) == -9


def test_groups_of_the_services_own_are_killed_and_removed_with_it(v1: CgroupsV1) -> None:
    v1.create(WEB, SMALL)
    own = ROOT / "pids" / PARENT / "web/own"
    own.mkdir()
    with running("sleep", "60") as process:
        (own / "cgroup.procs").write_text(str(process.pid))
        v1.kill(WEB)
        assert process.wait(10) == -9
    v1.remove(WEB)
    assert not own.exists()


def test_a_group_with_processes_is_not_removed_and_names_them(
    v1: CgroupsV1, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "PATIENCE", 0)
    v1.create(WEB, SMALL)
    with running("sleep", "60") as process:
        with pytest.raises(MachineError, match=f"processes in it: {process.pid}") as busy:
            v1.remove(WEB)
        assert busy.value.problem.code is Code.BUSY
        with pytest.raises(MachineError, match="it still holds web"):
            v1.close_parent()


def test_a_new_process_finds_and_removes_the_groups_of_a_killed_one(v1: CgroupsV1) -> None:
    v1.create(WEB, SMALL)
    other = CgroupsV1(PARENT, Limits(memory=1 << 30, pids=512), ROOT)
    with running("sleep", "60") as process:
        assert other.open_parent() == ()
        assert other.usage(WEB).pids == 1
        other.kill(WEB)
        process.wait(10)
    other.remove(WEB)


# Version 2, as far as the hybrid layout has it


def test_version_2_without_its_controllers_says_so(v2: CgroupsV2) -> None:
    assert v2.create(WEB, Resources(memory=4096, pids=5)) == (
        "cpu weight 100 not applied: this kernel has no cpu.weight",
        "memory limit 4096 not applied: this kernel has no memory.max",
        "pids limit 5 not applied: this kernel has no pids.max",
        "swap limit 0 not applied: this kernel has no memory.swap.max",
    )


def test_version_2_kills_frozen_processes_and_removes_groups_below(
    v2: CgroupsV2, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "PATIENCE", 0)
    v2.create(WEB, Resources())
    group = UNIFIED / PARENT / "web"
    (group / "own").mkdir()
    with running("sleep", "60") as process:
        (group / "own/cgroup.procs").write_text(str(process.pid))
        (group / "cgroup.freeze").write_text("1")
        with pytest.raises(MachineError, match=f"processes in it: {process.pid}"):
            v2.remove(WEB)
        v2.kill(WEB)
        assert process.wait(10) == -9
    v2.remove(WEB)
    assert not group.exists()
