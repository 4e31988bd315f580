"""The image on the real kernel: loop device, squashfs, bundles."""

import os
import subprocess
from pathlib import Path

import pytest

from extsloader.adapters.mounts.port import Mounts
from extsloader.adapters.mounts.unmounting import leftovers
from extsloader.model.errors import MachineError
from extsloader.model.ids import ServiceName, short
from extsloader.model.manifest import Service
from extsloader.model.reasons import Code
from tests.fakes.real_mounts import (
    SERVICE,
    Machine,
    loops_of,
    mounts_at,
    service_steps,
    tmpfs,
)

pytestmark = pytest.mark.root


def test_the_image_is_mounted_read_only_without_setuid_and_devices(machine: Machine) -> None:
    mountpoint = machine.mount()
    assert mountpoint == str(machine.mountpoint)
    (mount,) = mounts_at(machine.mountpoint)
    assert {"ro", "nosuid", "nodev"} <= set(mount.options)
    assert mount.source.startswith("/dev/loop")
    loop = Path("/sys/block") / Path(mount.source).name
    assert int((loop / "size").read_text()) * 512 == machine.image.manifest.image.size
    assert (loop / "ro").read_text() == "1\n"
    assert (loop / "loop/autoclear").read_text() == "1\n"
    assert (machine.run / "images").stat().st_mode & 0o777 == 0o700


def test_mounting_twice_is_mounting_once_also_for_a_new_process(machine: Machine) -> None:
    assert machine.mount() == machine.mount()
    assert len(mounts_at(machine.mountpoint)) == 1
    assert len(loops_of(machine.run.parent)) == 1


def test_unmounting_frees_the_loop_device_and_can_be_repeated(machine: Machine) -> None:
    machine.mount()
    for _ in range(2):
        Mounts(str(machine.run)).unmount_image(machine.image.digest)
        assert mounts_at(machine.mountpoint) == []
        assert loops_of(machine.run.parent) == []
        assert not machine.mountpoint.exists()


def test_something_else_at_the_place_of_the_image_is_never_covered(machine: Machine) -> None:
    mounts = Mounts(str(machine.run))
    mounts.apply((tmpfs(machine.mountpoint),))
    with pytest.raises(MachineError, match="tmpfs from extst is mounted on") as refused:
        machine.mount()
    assert refused.value.problem.code is Code.MOUNT
    assert [mount.fs_type for mount in mounts_at(machine.mountpoint)] == ["tmpfs"]


def test_another_file_than_the_mounted_one_is_not_taken_for_it(machine: Machine) -> None:
    machine.mount()
    path = Path(machine.image.path)
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    with pytest.raises(MachineError, match="is mounted on"):
        machine.mount()


def test_the_stored_file_may_be_deleted_under_the_mount(machine: Machine) -> None:
    machine.mount()
    Path(machine.image.path).unlink()
    lower = machine.mountpoint / "containers/services/web/lower"
    assert (lower / "etc/motd").read_text() == "hello"


def test_what_is_no_squashfs_is_refused_and_leaves_nothing(machine: Machine) -> None:
    Path(machine.image.path).write_bytes(bytes(machine.image.manifest.image.size))
    with pytest.raises(MachineError) as refused:
        machine.mount()
    assert refused.value.problem.code is Code.IMAGE_FS
    assert loops_of(machine.run.parent) == []
    assert not machine.mountpoint.exists()


def test_a_symbolic_link_at_the_mount_point_is_refused(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    machine.mountpoint.parent.mkdir()
    machine.mountpoint.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MachineError, match="a symbolic link is in the way"):
        machine.mount()
    assert leftovers(str(tmp_path)) == ()


def test_a_busy_image_is_not_unmounted_and_the_error_names_who_uses_it(machine: Machine) -> None:
    machine.mount()
    held = os.open(machine.mountpoint / "containers/services/web/config.json", os.O_RDONLY)
    try:
        with pytest.raises(MachineError) as busy:
            Mounts(str(machine.run)).unmount_image(machine.image.digest)
    finally:
        os.close(held)
    assert f"it is in use by process {os.getpid()} (" in busy.value.problem.message
    assert len(mounts_at(machine.mountpoint)) == 1


def test_a_loop_device_that_an_overlay_still_needs_is_told(machine: Machine) -> None:
    mounts = Mounts(str(machine.run))
    machine.mount()
    mounts.apply(service_steps(machine))
    with pytest.raises(MachineError, match="cannot release /dev/loop"):
        mounts.unmount_image(machine.image.digest)
    assert not machine.mountpoint.exists()
    mounts.undo(service_steps(machine))
    assert loops_of(machine.run.parent) == []


def test_a_sweep_takes_directories_without_a_mount_along(machine: Machine) -> None:
    """An rmdir that failed has left them; of the image that stays, and full ones, none is taken."""
    target = machine.mount()
    digits = short(machine.image.digest)
    kept = [machine.run / "bundles" / f"api-{digits}", machine.run / "uppers" / f"api-{digits}"]
    full = machine.run / "uppers" / "api-0123456789ab"
    gone = [machine.run / path for path in ("images/0123456789ab", "bundles/a-0123456789ab/rootfs")]
    for path in (*kept, full / "work", *gone):
        path.mkdir(parents=True)
    Mounts(str(machine.run)).sweep(machine.image.digest)
    assert [path for path in (*kept, full, Path(target)) if not path.exists()] == []
    assert not gone[0].exists()
    assert not gone[1].parent.exists()


def test_a_container_that_starts_meanwhile_holds_no_image(machine: Machine) -> None:
    """It has copies of all mounts until it has a root of its own."""
    machine.mount()
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo; exec cat"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as container:
        assert container.stdout
        container.stdout.readline()
        copies = Path(f"/proc/{container.pid}/mountinfo")
        assert str(machine.mountpoint) in copies.read_text()
        Mounts(str(machine.run)).unmount_image(machine.image.digest)
        assert str(machine.mountpoint) not in copies.read_text()
        assert loops_of(machine.run.parent) == []


def test_bundles_are_read_from_the_image_but_no_file_of_the_host(machine: Machine) -> None:
    mounts = Mounts(str(machine.run))
    mountpoint = machine.mount()
    assert mounts.read_bundle(mountpoint, SERVICE).config == "{}"
    bad = Service(name=ServiceName("bad"), bundle="containers/services/bad")
    with pytest.raises(MachineError) as refused:
        mounts.read_bundle(mountpoint, bad)
    assert refused.value.problem.code is Code.BUNDLE
