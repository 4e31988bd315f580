"""What the device is, from /proc as recorded on different hosts."""

import os
import resource
from pathlib import Path

import pytest

from extsloader.adapters.machine_facts import (
    EPOCH,
    Device,
    read_baked_floors,
    read_clock_floor,
    read_machine,
    read_revoked_images,
)
from extsloader.model.errors import MachineError
from extsloader.model.machine import Load
from extsloader.model.reasons import Code
from extsloader.model.settings import Settings
from extsloader.model.trust import Release

ALL = 0x1FFFFFFFFFF
NO_RESOURCE = ALL & ~(1 << 24)
V1 = "9:name=systemd:/\n4:memory:/x\n3:cpu,cpuacct:/\n0::/\n"
V2 = "0::/system.slice/extsloader.service\n"


def host(root: Path, *, held: int = ALL, bounding: int = ALL, cgroup: str = V1) -> Path:
    proc = root / "proc/self"
    proc.mkdir(parents=True)
    (proc / "status").write_text(f"Name:\tx\nCapEff:\t{held:016x}\nCapBnd:\t{bounding:016x}\n")
    (proc / "cgroup").write_text(cgroup)
    (proc / "oom_score_adj").write_text("-17\n")
    return root


def test_a_host_that_holds_everything_limits_nothing(tmp_path: Path) -> None:
    machine = read_machine(Settings(device_id="d1"), host(tmp_path))
    assert len(machine.capabilities) == 41
    assert machine.min_oom_score_adj == -1000
    assert machine.rlimits == ()
    assert machine.device_id == "d1"


def test_without_sys_resource_our_own_limits_hold(tmp_path: Path) -> None:
    machine = read_machine(Settings(), host(tmp_path, held=NO_RESOURCE, bounding=NO_RESOURCE))
    assert "CAP_SYS_RESOURCE" not in machine.capabilities
    assert {"CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE"} <= machine.capabilities
    assert machine.min_oom_score_adj == -17
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert ("RLIMIT_NOFILE", hard) in machine.rlimits
    assert all(limit != resource.RLIM_INFINITY for _, limit in machine.rlimits)


@pytest.mark.parametrize(("cgroup", "version"), [(V1, 1), (V2, 2)])
def test_the_hierarchy_that_holds_memory_counts(tmp_path: Path, cgroup: str, version: int) -> None:
    assert read_machine(Settings(), host(tmp_path, cgroup=cgroup)).cgroups == version


@pytest.mark.parametrize(
    ("setting", "file", "hypervisor"),
    [("", None, "kvm"), ("", "xen\n", "xen"), ("mini", "xen", "mini"), ("", "", "kvm")],
)
def test_the_hypervisor_is_set_found_or_kvm(
    tmp_path: Path, setting: str, file: str | None, hypervisor: str
) -> None:
    root = host(tmp_path)
    if file is not None:
        (root / "run").mkdir()
        (root / "run/eve-hv-type").write_text(file)
    assert read_machine(Settings(hypervisor=setting), root).hypervisor == hypervisor


def test_dm_verity_needs_its_program_a_target_and_a_kernel_that_lets_us(tmp_path: Path) -> None:
    root = host(tmp_path)

    def missing() -> str:
        return read_machine(Settings(), root).no_verity

    assert "there is no program veritysetup" in missing()
    program = root / "usr/sbin/veritysetup"
    program.parent.mkdir(parents=True)
    program.touch(0o755)
    assert missing() == "this kernel has no dm-verity"
    (root / "sys/module/dm_verity").mkdir(parents=True)
    assert missing() == ""
    control = root / "dev/mapper/control"
    control.parent.mkdir(parents=True)
    control.symlink_to("control")
    assert missing().startswith("device-mapper cannot be used: too many levels of symbolic links")


@pytest.mark.parametrize(
    ("name", "line", "there"),
    [
        ("modules.builtin", "kernel/drivers/md/dm-verity.ko", True),
        ("modules.dep", "kernel/drivers/md/dm-verity.ko.xz: kernel/drivers/md/dm-bufio.ko", True),
        ("modules.dep", "kernel/x.ko: kernel/drivers/md/dm-verity.ko", False),
        ("modules.dep", "kernel/drivers/md/dm-verity-loadpin.c:", False),
    ],
)
def test_the_target_may_be_built_in_or_wait_to_be_loaded(
    tmp_path: Path, name: str, line: str, *, there: bool
) -> None:
    root = host(tmp_path)
    program = root / "sbin/veritysetup"
    program.parent.mkdir()
    program.touch(0o755)
    modules = root / "lib/modules" / os.uname().release
    modules.mkdir(parents=True)
    (modules / name).write_text(f"kernel/a.ko:\n{line}\nkernel/z.ko:\n")
    assert (read_machine(Settings(), root).no_verity == "") == there


def test_this_machine_can_be_read() -> None:
    machine = read_machine(Settings())
    kernel = os.uname().machine
    assert machine.arch == {"x86_64": "amd64", "aarch64": "arm64"}.get(kernel, kernel)
    assert machine.cgroups in {1, 2}


def test_no_clock_is_believed_that_shows_less_than_the_time_of_the_build(tmp_path: Path) -> None:
    built = tmp_path / "clock-epoch"
    assert read_clock_floor(built) == EPOCH
    built.touch()
    for seconds, floor in ((EPOCH + 1, EPOCH + 1), (5, EPOCH)):
        os.utime(built, (seconds, seconds))
        assert read_clock_floor(built) == floor


def test_floors_lie_beside_the_keys(tmp_path: Path) -> None:
    assert read_baked_floors(str(tmp_path)) == ()
    (tmp_path / "floor.json").write_text('{"pkgs": 42, "other": 1}')
    assert read_baked_floors(str(tmp_path)) == (
        Release(name="pkgs", sequence=42),
        Release(name="other", sequence=1),
    )


@pytest.mark.parametrize("text", ["", "[]", '{"pkgs": "42"}', '{"pkgs": -1}', '{"a": 1, "a": 2}'])
def test_bad_floors_beside_the_keys_are_no_floors_at_all(tmp_path: Path, text: str) -> None:
    (tmp_path / "floor.json").write_text(text)
    with pytest.raises(MachineError, match=r"E_KEYS: cannot use .*floor\.json"):
        read_baked_floors(str(tmp_path))


def test_the_words_of_the_kernels_command_line(tmp_path: Path) -> None:
    root = host(tmp_path)
    (root / "proc/cmdline").write_text("quiet root=/dev/vda  eve_debug\n")
    words = read_machine(Settings(), root).command_line
    assert words == ("quiet", "root=/dev/vda", "eve_debug")


def test_what_the_device_has_left(tmp_path: Path) -> None:
    pressure = tmp_path / "proc/pressure"
    pressure.mkdir(parents=True)
    assert Device(tmp_path).read_load() is None
    (tmp_path / "proc/meminfo").write_text("MemTotal:  4 kB\nMemAvailable:     3 kB\n")
    assert Device(tmp_path).read_load() == Load(free_memory=3 << 10), "a kernel without PSI"
    line = "some avg10={} avg60=0.00 avg300=0.00 total=1\nfull avg10=9.99 avg60=0.00\n"
    (pressure / "memory").write_text(line.format("1.25"))
    (pressure / "cpu").write_text(line.format("90.00"))
    load = Load(free_memory=3 << 10, memory_pressure=1.25, cpu_pressure=90.0)
    assert Device(tmp_path).read_load() == load


def test_this_machine_has_something_left() -> None:
    load = Device().read_load()
    assert load is not None
    assert load.free_memory > 1 << 20


def test_paths_exist_or_do_not(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    assert Device(tmp_path).find_existing({"/there", "/not", "/there/below"}) == {"/there"}


def test_the_images_that_the_policy_revokes(tmp_path: Path) -> None:
    assert read_revoked_images(str(tmp_path)) == frozenset()
    policy = tmp_path / "policy.json"
    policy.write_text('{"threshold": 1}')
    assert read_revoked_images(str(tmp_path)) == frozenset()
    policy.write_text('{"threshold": 1, "revoked_images": ["dd", "ee"]}')
    assert read_revoked_images(str(tmp_path)) == {"dd", "ee"}


@pytest.mark.parametrize("policy", ["", "[]", '{"revoked_images": "dd"}', '{"revoked_images":[1]}'])
def test_a_list_of_revoked_images_that_makes_no_sense_is_told(tmp_path: Path, policy: str) -> None:
    (tmp_path / "policy.json").write_text(policy)
    with pytest.raises(MachineError) as caught:
        read_revoked_images(str(tmp_path))
    assert caught.value.problem.code is Code.KEYS
