"""`MountPort`: whatever is mounted can be mounted again, undone, and swept."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from extsloader.adapters.mounts.port import Mounts
from extsloader.adapters.mounts.unmounting import leftovers, sweep
from extsloader.adapters.mounts.verity import close_others
from extsloader.model.errors import MachineError
from extsloader.model.ids import Digest, ServiceName, short
from extsloader.model.manifest import Service, StoredImage
from extsloader.model.plan import MountKind, MountStep
from extsloader.model.reasons import Code, Problem
from extsloader.ports.machine import MountPort
from tests.fakes import builders, real_images
from tests.fakes.machine import FakeMachine
from tests.fakes.real_verity import NO_VERITY, flip, forget_pages

WEB = builders.service("web")
MISSING = Service(name=ServiceName("none"), bundle="containers/services/none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    port: MountPort
    run: str
    image: StoredImage
    other: StoredImage
    impossible: MountStep
    spoil: Callable[[], object]  # the image, so that it cannot be mounted
    hold: Callable[[str], AbstractContextManager[object]]  # a mount, so that it is busy
    mounted: Callable[[], list[str]]  # where, in alphabetical order; stacked mounts count twice
    damage: Callable[[], object]  # the mounted image's disk, and something reads from it
    no_verity: str = ""

    def mount(self, image: StoredImage | None = None, *, verity: bool = False) -> str:
        found = image or self.image
        path = found.path if Path(found.path).exists() else os.devnull
        with Path(path).open("rb") as file:
            return self.port.mount_image(found, file.fileno(), verity=verity)

    def steps(self, mountpoint: str, digest: Digest | None = None) -> tuple[MountStep, ...]:
        """What a service gets: a place to write and something of the image."""
        own = f"web-{short(digest or self.image.digest)}"
        upper, rootfs = f"{self.run}/uppers/{own}", f"{self.run}/bundles/{own}/rootfs"
        source = f"{mountpoint}/containers"
        return (
            MountStep(kind=MountKind.MOUNT, target=upper, fs_type="tmpfs", source="extst"),
            MountStep(kind=MountKind.MKDIR, target=f"{upper}/work"),
            MountStep(kind=MountKind.BIND, target=rootfs, source=source),
        )


@contextmanager
def fake(machine: FakeMachine) -> Iterator[Subject]:
    run, image = "/run/extsloader", builders.stored(WEB, digest="a" * 64)
    impossible = MountStep(kind=MountKind.MOUNT, target=f"{run}/no", fs_type="extst-no-such-fs")
    machine.unmountable.add(impossible.target)
    machine.behave(MISSING.name).unreadable = True
    machine.services = (WEB,)

    @contextmanager
    def hold(target: str) -> Iterator[None]:
        machine.busy.add(target)
        yield
        machine.busy.remove(target)

    def mounted() -> list[str]:
        steps = [step.target for step in machine.applied if step.kind is not MountKind.MKDIR]
        return sorted([*steps, *machine.mounted.values()])

    yield Subject(
        port=machine.ports().mounts,
        run=run,
        image=image,
        other=builders.stored(WEB, digest="b" * 64),
        impossible=impossible,
        spoil=lambda: setattr(machine, "mount_fails", Problem(Code.IMAGE_FS, "no squashfs")),
        hold=hold,
        mounted=mounted,
        damage=lambda: machine.damaged.add(image.digest),
    )


@contextmanager
def real(directory: Path, images: tuple[StoredImage, StoredImage]) -> Iterator[Subject]:
    run, image = directory / "run", Path(images[0].path)
    run.mkdir()
    mine = StoredImage(
        manifest=images[0].manifest, path=str(shutil.copy(image, directory)), key_ids=()
    )
    yield Subject(
        port=Mounts(str(run)),
        run=str(run),
        image=mine,
        other=images[1],
        impossible=MountStep(kind=MountKind.MOUNT, target=f"{run}/no", fs_type="extst-no-such-fs"),
        spoil=lambda: Path(mine.path).write_bytes(bytes(image.stat().st_size)),
        hold=holding,
        mounted=lambda: sorted(mount.target for mount in leftovers(str(run))),
        damage=lambda: spoil_and_read(mine, run),
        no_verity=NO_VERITY,
    )
    sweep(str(run))
    close_others(Digest(""))


def spoil_and_read(image: StoredImage, run: Path) -> None:
    spec = image.manifest.image.verity
    for block in range(1, spec.data_blocks - 1):
        flip(Path(image.path), block * spec.block_size)
    forget_pages()
    with suppress(OSError):
        for path in run.glob("images/*/**/busybox"):
            path.read_bytes()


@contextmanager
def holding(target: str) -> Iterator[None]:
    descriptor = os.open(target, os.O_RDONLY)
    yield
    os.close(descriptor)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[StoredImage, StoredImage]:
    def make(name: str, *services: str) -> StoredImage:
        path = tmp_path_factory.mktemp("extst-images") / name
        manifest = real_images.make_image(path, None, *map(real_images.service, services))
        return StoredImage(manifest=manifest, path=str(path), key_ids=())

    return make("image", "web"), make("other", "web", "more")


@pytest.fixture
def subject(
    kind: str, machine: FakeMachine, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Subject]:
    with (
        fake(machine)
        if kind == "fake"
        else real(tmp_path, request.getfixturevalue("images")) as subject
    ):
        yield subject


def test_mounting_twice_is_mounting_once(subject: Subject) -> None:
    assert subject.mount() == subject.mount()
    assert subject.mounted() == [subject.mount()]


def test_images_have_mount_points_of_their_own(subject: Subject) -> None:
    assert subject.mount() != subject.mount(subject.other)
    assert len(subject.mounted()) == 2


def test_an_image_that_cannot_be_mounted_leaves_nothing(subject: Subject) -> None:
    subject.spoil()
    with pytest.raises(MachineError) as failed:
        subject.mount()
    assert failed.value.problem.code is Code.IMAGE_FS
    assert subject.mounted() == []


def test_unmounting_what_is_not_mounted_is_no_error(subject: Subject) -> None:
    subject.mount()
    for _ in range(2):
        subject.port.unmount_image(subject.image.digest)
        assert subject.mounted() == []


def test_an_image_under_its_services_is_not_released(subject: Subject) -> None:
    steps = subject.steps(subject.mount())
    subject.port.apply(steps)
    with pytest.raises(MachineError) as held:
        subject.port.unmount_image(subject.image.digest)
    assert held.value.problem.code is Code.MOUNT
    subject.port.undo(steps)
    assert subject.mounted() == []


def test_steps_that_are_done_twice_are_done_once(subject: Subject) -> None:
    mountpoint = subject.mount()
    steps = subject.steps(mountpoint)
    for _ in range(2):
        subject.port.apply(steps)
        assert subject.mounted() == sorted((mountpoint, steps[0].target, steps[-1].target))


def test_steps_that_are_undone_twice_are_undone_once(subject: Subject) -> None:
    mountpoint = subject.mount()
    steps = subject.steps(mountpoint)
    subject.port.apply(steps)
    for _ in range(2):
        subject.port.undo(steps)
        assert subject.mounted() == [mountpoint]


def test_steps_that_were_half_done_are_undone(subject: Subject) -> None:
    steps = subject.steps(subject.mount())
    subject.port.apply(steps[:1])
    subject.port.undo(steps)
    assert len(subject.mounted()) == 1


def test_a_failure_undoes_what_was_done_and_nothing_else(subject: Subject) -> None:
    steps = subject.steps(subject.mount())
    subject.port.apply(steps[:1])
    before = subject.mounted()
    with pytest.raises(MachineError) as failed:
        subject.port.apply((*steps, subject.impossible))
    assert failed.value.problem.code is Code.MOUNT
    assert subject.mounted() == before


def test_undoing_goes_on_after_a_failure(subject: Subject) -> None:
    mountpoint = subject.mount()
    first, *_, last = steps = subject.steps(mountpoint)
    subject.port.apply(steps)
    with subject.hold(last.target):
        with pytest.raises(MachineError) as busy:
            subject.port.undo(steps)
        assert busy.value.problem.code is Code.MOUNT
        assert first.target not in subject.mounted()
        assert last.target in subject.mounted()
    subject.port.undo(steps)
    assert subject.mounted() == [mountpoint]


def test_a_sweep_keeps_one_image_with_its_services_or_none(subject: Subject) -> None:
    for image in (subject.image, subject.other):
        subject.port.apply(subject.steps(subject.mount(image), image.digest))
    assert len(subject.mounted()) == 6
    subject.port.sweep(subject.other.digest)
    kept = subject.mount(subject.other)
    steps = subject.steps(kept, subject.other.digest)
    assert subject.mounted() == sorted((kept, steps[0].target, steps[-1].target))
    subject.port.sweep(Digest(""))
    assert subject.mounted() == []


def test_a_watched_image_says_when_a_bad_block_was_read(subject: Subject) -> None:
    if subject.no_verity:
        pytest.skip(subject.no_verity)
    subject.mount(verity=True)
    subject.port.check_image(subject.image.digest)
    subject.damage()
    with pytest.raises(MachineError) as bad:
        subject.port.check_image(subject.image.digest)
    assert bad.value.problem.code is Code.VERITY
    subject.port.unmount_image(subject.image.digest)
    assert subject.mounted() == []


def test_a_mount_made_in_another_way_is_not_taken_over(subject: Subject) -> None:
    subject.mount()
    with pytest.raises(MachineError) as refused:
        subject.mount(verity=True)
    assert refused.value.problem.code is Code.MOUNT
    assert len(subject.mounted()) == 1


def test_an_image_that_is_not_watched_cannot_be_asked_about(subject: Subject) -> None:
    subject.mount()
    with pytest.raises(MachineError) as unknown:
        subject.port.check_image(subject.image.digest)
    assert unknown.value.problem.code is Code.MOUNT


def test_a_bundle_is_read_from_a_mounted_image(subject: Subject) -> None:
    mountpoint = subject.mount()
    bundle = subject.port.read_bundle(mountpoint, WEB)
    assert bundle.service == "web"
    assert '"args"' in bundle.config
    with pytest.raises(MachineError) as missing:
        subject.port.read_bundle(mountpoint, MISSING)
    assert missing.value.problem.code is Code.BUNDLE
    subject.port.unmount_image(subject.image.digest)
    with pytest.raises(MachineError):
        subject.port.read_bundle(mountpoint, WEB)


def test_services_are_found_in_a_mounted_image(subject: Subject) -> None:
    found = subject.port.find_services(subject.mount())
    assert WEB.name in {service.name for service in found}
