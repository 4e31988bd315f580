"""The mounts of services on the real kernel: overlays, binds, and what undoes them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from extsloader.adapters.mounts.port import Mounts
from extsloader.adapters.mounts.unmounting import leftovers, sweep
from extsloader.model.errors import MachineError
from extsloader.model.plan import MountKind, MountStep
from extsloader.model.reasons import Code
from tests.fakes.real_mounts import (
    Machine,
    bind,
    mkdir,
    mounts_at,
    overlay,
    service_steps,
    tmpfs,
)

pytestmark = pytest.mark.root


# The mounts of a service


def test_a_service_gets_an_overlay_and_everything_goes_again(machine: Machine) -> None:
    mounts = Mounts(str(machine.run))
    machine.mount()
    steps = service_steps(machine)
    mounts.apply(steps)
    rootfs = machine.run / "bundles/web/rootfs"
    assert (rootfs / "etc/motd").read_text() == "hello"
    (mount,) = mounts_at(rootfs)
    assert {"nosuid", "nodev"} <= set(mount.options)
    mounts.undo(steps)
    assert [path.name for path in machine.run.iterdir()] != []  # parents stay
    assert not (machine.run / "bundles/web").exists()
    assert not (machine.run / "upper/web").exists()
    mounts.undo(steps)


def test_applying_twice_mounts_once_and_keeps_what_was_written(machine: Machine) -> None:
    machine.mount()
    steps = service_steps(machine)
    for written in (False, True):
        Mounts(str(machine.run)).apply(steps)
        data = machine.run / "bundles/web/rootfs/data"
        assert data.exists() is written
        data.touch()
    assert len(leftovers(str(machine.run))) == 3


def test_a_new_process_undoes_what_a_killed_one_left_half_done(machine: Machine) -> None:
    machine.mount()
    steps = service_steps(machine)
    Mounts(str(machine.run)).apply(steps[:3])
    survivor = Mounts(str(machine.run))
    survivor.undo(steps)
    assert [mount.fs_type for mount in leftovers(str(machine.run))] == ["squashfs"]
    survivor.apply(steps)
    assert len(leftovers(str(machine.run))) == 3


def test_a_failure_in_the_middle_undoes_what_was_done_before_it(machine: Machine) -> None:
    machine.mount()
    steps = service_steps(machine)
    with pytest.raises(MachineError, match="cannot mount extst-no-such-fs on") as refused:
        Mounts(str(machine.run)).apply(
            (
                *steps,
                MountStep(
                    kind=MountKind.MOUNT,
                    target=str(machine.run / "bundles/web/rootfs/mnt"),
                    fs_type="extst-no-such-fs",
                ),
            )
        )
    assert refused.value.problem.code is Code.MOUNT
    assert [mount.fs_type for mount in leftovers(str(machine.run))] == ["squashfs"]
    assert not (machine.run / "upper/web").exists()


def test_a_failure_leaves_alone_what_was_there_before(machine: Machine) -> None:
    mounts = Mounts(str(machine.run))
    first = tmpfs(machine.run / "first")
    mounts.apply((first,))
    with pytest.raises(MachineError):
        mounts.apply((first, bind(machine.run / "missing", machine.run / "second")))
    assert len(mounts_at(machine.run / "first")) == 1
    assert not (machine.run / "second").exists()


def test_an_empty_directory_of_the_image_outlives_the_mount_on_it(machine: Machine) -> None:
    mounts = Mounts(str(machine.run))
    machine.mount()
    step = tmpfs(machine.run / "bundles/web/rootfs/empty")
    mounts.apply((*service_steps(machine), step))
    mounts.undo((step,))
    assert mounts_at(Path(step.target)) == []
    assert Path(step.target).exists()


def test_another_overlay_at_the_same_place_is_refused(machine: Machine) -> None:
    mounts = Mounts(str(machine.run))
    machine.mount()
    steps = service_steps(machine)
    mounts.apply(steps)
    rootfs = machine.run / "bundles/web/rootfs"
    other = overlay(rootfs, machine.mountpoint / "containers", machine.run / "upper/web")
    with pytest.raises(MachineError, match="overlay from overlay is mounted there already"):
        mounts.apply((other,))
    assert len(mounts_at(rootfs)) == 1


def test_a_lower_directory_that_is_a_link_to_the_host_is_refused(machine: Machine) -> None:
    machine.mount()
    *before, _ = service_steps(machine)
    link = machine.mountpoint / "containers/services/web/out"
    bad = overlay(machine.run / "bundles/web/rootfs", link, machine.run / "upper/web")
    with pytest.raises(MachineError, match="a symbolic link is in the way") as refused:
        Mounts(str(machine.run)).apply((*before, bad))
    assert refused.value.problem.hint == f"look at {link}"
    with pytest.raises(MachineError, match="a symbolic link is in the way"):
        Mounts(str(machine.run)).apply((bind(link, machine.run / "bound"),))


def test_a_bind_gets_its_flags_and_keeps_those_of_its_source(machine: Machine) -> None:
    machine.mount()
    mounts = Mounts(str(machine.run))
    target = machine.run / "bound"
    step = bind(machine.mountpoint / "containers", target, "noexec")
    mounts.apply((step,))
    mounts.apply((step,))
    (mount,) = mounts_at(target)
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(mount.options)
    mounts.undo((step,))
    assert mounts_at(target) == []
    assert not target.exists()


def test_a_recursive_bind_is_restricted_and_undone_with_all_that_is_in_it(machine: Machine) -> None:
    mounts = Mounts(str(machine.run))
    origin, copy = machine.run / "origin", machine.run / "copy"
    before = (
        tmpfs(origin, "shared"),
        tmpfs(origin / "inner", "shared", source="extst-inner"),
    )
    mounts.apply(before)
    step = bind(origin, copy, "rbind", "ro", "rshared")
    mounts.apply((step,))
    for path in (copy, copy / "inner"):
        (mount,) = mounts_at(path)
        assert "ro" in mount.options
    mounts.undo((step,))
    assert mounts_at(copy) == mounts_at(copy / "inner") == []
    # Its peers were the originals, which must survive.
    assert len(mounts_at(origin)) == len(mounts_at(origin / "inner")) == 1


def test_what_is_mounted_in_a_bind_does_not_appear_in_its_source(machine: Machine) -> None:
    mounts = Mounts(str(machine.run))
    origin, copy = machine.run / "origin", machine.run / "copy"
    mounts.apply((tmpfs(origin, "shared"), mkdir(origin / "d"), bind(origin, copy)))
    mounts.apply((tmpfs(copy / "d"),))
    assert mounts_at(origin / "d") == []


def test_a_remount_changes_flags_each_time_and_needs_no_undo(machine: Machine) -> None:
    mounts = Mounts(str(machine.run))
    target = machine.run / "t"
    mounts.apply((tmpfs(target),))
    for word in ("ro", "rw"):
        step = tmpfs(target, "remount", word)
        mounts.apply((step,))
        mounts.undo((step,))
        (mount,) = mounts_at(target)
        assert mount.options[0] == word


def test_outside_of_the_run_directory_nothing_is_made_or_removed(
    machine: Machine, tmp_path: Path
) -> None:
    mounts = Mounts(str(machine.run))
    outside = tmp_path / "outside"
    with pytest.raises(MachineError, match="no such file or directory"):
        mounts.apply((tmpfs(outside),))
    outside.mkdir()
    mounts.apply((tmpfs(outside),))
    with pytest.raises(MachineError, match="mounted there already"):
        mounts.undo((tmpfs(outside, source="extst-other"),))
    mounts.undo((tmpfs(outside),))
    assert outside.exists()


@pytest.mark.parametrize("path", ["relative", "/run/../etc", "/run/x/", "/run//x"])
def test_paths_that_cannot_be_compared_are_refused(machine: Machine, path: str) -> None:
    step = MountStep(kind=MountKind.MOUNT, target=path, fs_type="tmpfs", source="extst")
    with pytest.raises(MachineError, match="expected an absolute path"):
        Mounts(str(machine.run)).apply((step,))


def test_a_nul_character_does_not_cut_options_short(machine: Machine) -> None:
    with pytest.raises(MachineError, match="NUL"):
        Mounts(str(machine.run)).apply((tmpfs(machine.run / "t", "size=64k\0,ro"),))


def test_services_that_come_and_go_at_once_share_their_parent_directories(
    machine: Machine,
) -> None:
    mounts = Mounts(str(machine.run))

    def come_and_go(name: str) -> None:
        shared = machine.run / "shared"
        steps = (mkdir(shared), mkdir(shared / name))
        for _ in range(300):
            mounts.apply(steps)
            mounts.undo(steps)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(come_and_go, "abcd"))
    assert list(machine.run.iterdir()) == []


# What an earlier process left


def test_a_sweep_undoes_everything_but_what_shall_stay(machine: Machine) -> None:
    mounts = Mounts(str(machine.run))
    machine.mount()
    mounts.apply((*service_steps(machine), tmpfs(machine.run / "other")))
    keep = (str(machine.mountpoint), str(machine.run / "upper/web"))
    assert sorted(sweep(str(machine.run), keep)) == [
        str(machine.run / "bundles/web/rootfs"),
        str(machine.run / "other"),
    ]
    assert len(leftovers(str(machine.run))) == 2
    assert not (machine.run / "other").exists()
    assert sweep(str(machine.run), keep) == ()
