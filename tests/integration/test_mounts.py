"""Mounts on the real kernel: loop devices, squashfs, overlays and binds."""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from extsloader.adapters.mounts import mountinfo
from extsloader.adapters.mounts.port import Mounts
from extsloader.adapters.mounts.unmounting import leftovers, sweep
from extsloader.model.errors import MachineError
from extsloader.model.ids import Digest, ServiceName
from extsloader.model.manifest import (
    Compatible,
    ImageSpec,
    Manifest,
    Service,
    StoredImage,
    Verity,
)
from extsloader.model.plan import MountKind, MountStep
from extsloader.model.reasons import Code

pytestmark = pytest.mark.root

SERVICE = Service(name=ServiceName("web"), bundle="containers/services/web")


class Machine(NamedTuple):
    run: Path
    image: StoredImage
    mountpoint: Path

    def mount(self) -> str:
        descriptor = os.open(self.image.path, os.O_RDONLY)
        try:
            return Mounts(str(self.run)).mount_image(self.image, descriptor)
        finally:
            os.close(descriptor)


def stored(path: Path, size: int, digest: Digest) -> StoredImage:
    verity = Verity(
        algorithm="sha256",
        root_hash="0" * 64,
        salt="",
        block_size=4096,
        data_blocks=size // 4096,
        hash_offset=size,
    )
    manifest = Manifest(
        schema=1,
        name="pkgs",
        version="1",
        sequence=1,
        issued_at="2026-01-01T00:00:00Z",
        image=ImageSpec(size=size, digest=digest, format="squashfs", verity=verity),
        compatible=Compatible(arch="amd64", hypervisors=("kvm",)),
        services=(SERVICE,),
    )
    return StoredImage(manifest=manifest, path=str(path), key_ids=())


@pytest.fixture(scope="module")
def squashfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("extst-tree")
    lower = tree / "containers/services/web/lower"
    (lower / "etc").mkdir(parents=True)
    (lower / "etc/motd").write_text("hello")
    (lower / "empty").mkdir()
    (lower.parent / "config.json").write_text("{}")
    (lower.parent / "out").symlink_to("/etc")
    bad = tree / "containers/services/bad"
    bad.mkdir()
    (bad / "config.json").symlink_to("/etc/hostname")
    image = tmp_path_factory.mktemp("extst-image") / "pkgs.squashfs"
    subprocess.run(
        ["mksquashfs", tree, image, "-quiet", "-no-progress", "-comp", "zstd"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return image


@pytest.fixture
def machine(tmp_path: Path, squashfs: Path) -> Iterator[Machine]:
    content = squashfs.read_bytes()
    digest = Digest(hashlib.sha256(content + str(tmp_path).encode()).hexdigest())
    store = tmp_path / "store"
    store.mkdir()
    path = store / f"{digest}.img"
    path.write_bytes(content + b"the trailer" * 1000)
    run = tmp_path / "run"
    run.mkdir(0o700)
    yield Machine(run, stored(path, len(content), digest), run / "images" / digest[:12])
    sweep(str(tmp_path))
    assert leftovers(str(tmp_path)) == ()
    assert loops_of(tmp_path) == []


def loops_of(directory: Path) -> list[str]:
    files = Path("/sys/block").glob("loop*/loop/backing_file")
    return [text for file in files if (text := file.read_text()).startswith(str(directory))]


def mounts_at(path: Path) -> list[mountinfo.Mount]:
    return [mount for mount in mountinfo.read() if mount.target == str(path)]


def tmpfs(target: Path, *options: str, source: str = "extst") -> MountStep:
    return MountStep(
        kind=MountKind.MOUNT, target=str(target), fs_type="tmpfs", source=source, options=options
    )


def bind(source: Path, target: Path, *options: str) -> MountStep:
    return MountStep(kind=MountKind.BIND, target=str(target), source=str(source), options=options)


def mkdir(target: Path) -> MountStep:
    return MountStep(kind=MountKind.MKDIR, target=str(target))


def overlay(target: Path, lower: Path, upper: Path, *options: str) -> MountStep:
    directories = (f"lowerdir={lower}", f"upperdir={upper}/u", f"workdir={upper}/w")
    return MountStep(
        kind=MountKind.MOUNT,
        target=str(target),
        fs_type="overlay",
        source="overlay",
        options=("nosuid", "nodev", *directories, *options),
    )


def service_steps(machine: Machine) -> tuple[MountStep, ...]:
    upper, bundle = machine.run / "upper/web", machine.run / "bundles/web"
    lower = machine.mountpoint / "containers/services/web/lower"
    return (
        tmpfs(upper, "nosuid", "nodev", "size=64k", "mode=700"),
        mkdir(upper / "u"),
        mkdir(upper / "w"),
        mkdir(bundle),
        overlay(bundle / "rootfs", lower, upper),
    )


# The image


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
    assert mounts_at(machine.mountpoint) == []
    mounts.undo(service_steps(machine))
    assert loops_of(machine.run.parent) == []


def test_bundles_are_read_from_the_image_but_no_file_of_the_host(machine: Machine) -> None:
    mounts = Mounts(str(machine.run))
    mountpoint = machine.mount()
    assert mounts.read_bundle(mountpoint, SERVICE).config == "{}"
    bad = Service(name=ServiceName("bad"), bundle="containers/services/bad")
    with pytest.raises(MachineError) as refused:
        mounts.read_bundle(mountpoint, bad)
    assert refused.value.problem.code is Code.BUNDLE


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
