"""dm-verity under the mounted image, on a kernel that has it."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from extsloader.adapters.mounts import loop, verity
from extsloader.adapters.mounts.port import Mounts
from extsloader.adapters.mounts.programs import settle_udev
from extsloader.adapters.mounts.unmounting import leftovers, sweep
from extsloader.model.errors import MachineError
from extsloader.model.ids import Digest, short
from extsloader.model.manifest import StoredImage
from extsloader.model.plan import MountKind, MountStep
from extsloader.model.reasons import Code
from tests.fakes.real_images import make_image, service
from tests.fakes.real_mounts import loops_of, mounts_at
from tests.fakes.real_verity import flip, forget_pages, mapped, needs_none, needs_verity

pytestmark = pytest.mark.root

NOISE = os.urandom(1 << 20)  # does not compress: each of its blocks is read as such


class Stored:
    """A verified image in a store, and the agent's run directory."""

    def __init__(self, directory: Path) -> None:
        self.path, self.run = directory / "image", directory / "run"
        self.run.mkdir(0o700)
        (directory / "content").write_bytes(NOISE)
        manifest = make_image(self.path, None, service("web"), content=directory / "content")
        self.image = StoredImage(manifest=manifest, path=str(self.path), key_ids=())
        self.digest = self.image.digest
        self.name = f"extsloader-{short(self.digest)}"
        self.mountpoint = self.run / "images" / short(self.digest)

    def mounts(self) -> Mounts:
        """As a new process has it: nothing is remembered."""
        return Mounts(str(self.run))

    def mount(self, image: StoredImage | None = None, *, checked: bool = True) -> str:
        with self.path.open("rb") as file:
            return self.mounts().mount_image(image or self.image, file.fileno(), verity=checked)

    def with_root_hash(self, root_hash: str) -> StoredImage:
        spec = self.image.manifest.image
        spec = replace(spec, verity=replace(spec.verity, root_hash=root_hash))
        return replace(self.image, manifest=replace(self.image.manifest, image=spec))


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[Stored]:
    found = Stored(tmp_path)
    yield found
    sweep(str(tmp_path))
    verity.close_others(Digest(""))
    settle_udev()
    assert leftovers(str(tmp_path)) == ()
    assert mapped() == []
    assert loops_of(tmp_path) == []


def problem(stored: Stored) -> Code | None:
    try:
        stored.mounts().check_image(stored.digest)
    except MachineError as error:
        return error.problem.code
    return None


@needs_none
def test_without_device_mapper_the_mount_fails_with_the_reason(stored: Stored) -> None:
    with pytest.raises(MachineError, match="cannot set up dm-verity for the image") as failed:
        stored.mount()
    assert failed.value.problem.code is Code.MOUNT
    assert "device-mapper" in failed.value.problem.message
    assert failed.value.problem.hint
    assert not stored.mountpoint.exists()
    assert loops_of(stored.path.parent) == []


@needs_verity
def test_a_good_image_is_read_through_dm_verity_and_leaves_nothing(stored: Stored) -> None:
    assert stored.mount() == str(stored.mountpoint)
    (mount,) = mounts_at(stored.mountpoint)
    assert mount.source.startswith("/dev/dm-")
    assert {"ro", "nosuid", "nodev"} <= set(mount.options)
    assert (stored.mountpoint / "content").read_bytes() == NOISE
    assert problem(stored) is None
    assert mapped() == [stored.name]
    for _ in range(2):
        stored.mounts().unmount_image(stored.digest)
        assert mapped() == []
        assert loops_of(stored.path.parent) == []
        assert not stored.mountpoint.exists()


@needs_verity
def test_the_kernel_got_what_was_signed_and_not_what_the_superblock_says(stored: Stored) -> None:
    spec = stored.image.manifest.image.verity
    with stored.path.open("r+b") as file:
        file.seek(spec.hash_offset)
        file.write(b"\xff" * spec.block_size)
    stored.mount()
    assert (stored.mountpoint / "content").read_bytes() == NOISE
    argv = ("veritysetup", "status", stored.name)
    status = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    assert spec.root_hash in status
    assert spec.salt in status
    assert "readonly" in status


@needs_verity
@pytest.mark.parametrize("bit", [0, 255])
def test_a_wrong_root_hash_is_refused_although_the_device_opens(stored: Stored, bit: int) -> None:
    right = int(stored.image.manifest.image.verity.root_hash, 16)
    with pytest.raises(MachineError, match="cannot trust the image") as refused:
        stored.mount(stored.with_root_hash(f"{right ^ 1 << bit:064x}"))
    assert refused.value.problem.code is Code.VERITY
    assert mapped() == []
    assert loops_of(stored.path.parent) == []
    assert not stored.mountpoint.exists()


@needs_verity
@pytest.mark.parametrize("block", [0, -1])
def test_a_bad_block_at_either_end_is_found_before_the_mount(stored: Stored, block: int) -> None:
    spec = stored.image.manifest.image.verity
    flip(stored.path, block % spec.data_blocks * spec.block_size + 100)
    with pytest.raises(MachineError) as refused:
        stored.mount()
    assert refused.value.problem.code is Code.VERITY


@needs_verity
def test_a_block_that_goes_bad_later_is_an_error_and_never_wrong_data(stored: Stored) -> None:
    stored.mount()
    flip(stored.path, stored.path.read_bytes().index(NOISE[300_000:300_064]))
    forget_pages()
    assert problem(stored) is None, "nobody has read it yet"
    with pytest.raises(OSError, match="Input/output error"):
        (stored.mountpoint / "content").read_bytes()
    assert problem(stored) is Code.VERITY
    assert (
        stored.mounts()
        .read_bundle(str(stored.mountpoint), stored.image.manifest.services[0])
        .config
    )
    stored.mounts().unmount_image(stored.digest)
    assert mapped() == []


@needs_verity
def test_a_new_process_adopts_the_mount(stored: Stored) -> None:
    assert stored.mount() == stored.mount()
    assert len(mounts_at(stored.mountpoint)) == 1
    assert mapped() == [stored.name]


@needs_verity
@pytest.mark.parametrize("checked", [True, False])
def test_a_mount_that_was_made_in_the_other_way_is_not_taken_over(
    stored: Stored, *, checked: bool
) -> None:
    stored.mount(checked=not checked)
    with pytest.raises(MachineError, match="is mounted on"):
        stored.mount(checked=checked)
    assert len(mounts_at(stored.mountpoint)) == 1


@needs_verity
def test_a_device_that_a_killed_agent_left_unmounted_is_made_anew(stored: Stored) -> None:
    leave_device(stored, stored.with_root_hash("0" * 64))
    assert mapped() == [stored.name]
    stored.mount()
    assert (stored.mountpoint / "content").read_bytes() == NOISE


@needs_verity
def test_a_sweep_takes_the_devices_of_other_images(stored: Stored) -> None:
    leave_device(stored, stored.image)
    stored.mounts().sweep(stored.digest)
    assert mapped() == [stored.name]
    stored.mounts().sweep(Digest("f" * 64))
    assert mapped() == []
    stored.mount()
    stored.mounts().sweep(Digest(""))
    assert mapped() == []
    assert mounts_at(stored.mountpoint) == []


@needs_verity
def test_a_device_that_a_service_still_needs_is_told_and_goes_with_it(stored: Stored) -> None:
    held = MountStep(
        kind=MountKind.BIND, source=f"{stored.mount()}/containers", target=f"{stored.run}/held"
    )
    stored.mounts().apply((held,))
    with pytest.raises(MachineError, match="cannot release /dev/loop"):
        stored.mounts().unmount_image(stored.digest)
    assert (stored.run / "held/services/web/config.json").stat().st_size
    stored.mounts().undo((held,))
    stored.mounts().sweep(Digest(""))  # or the kernel has done it by itself meanwhile
    assert mapped() == []


def leave_device(stored: Stored, image: StoredImage) -> None:
    """What is there when the agent is killed between opening the device and mounting it."""
    spec = image.manifest.image
    with stored.path.open("rb") as file, loop.attached(file.fileno(), spec.size, "extst") as node:
        argv = ("veritysetup", "open", node, stored.name, node, spec.verity.root_hash)
        subprocess.run((*argv, *verity.parameters(spec.verity)), check=True, capture_output=True)
