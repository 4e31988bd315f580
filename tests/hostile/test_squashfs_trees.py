"""Squashfs images whose superblock is fine and whose tree is not, mounted by the real kernel.

Nobody in the agent walks a tree, so no walk needs limits: of an image it reads `config.json` and
`runtime.json` of each service, by paths from the manifest, and the kernel serves the rest.
"""

import os
import stat
import struct
import subprocess
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from extsloader.adapters.mounts.port import Mounts
from extsloader.adapters.mounts.syscalls import MS_RDONLY, mount
from extsloader.adapters.mounts.unmounting import leftovers, sweep
from extsloader.core.oci_mounts import SAFE_OVERLAY, Place, mount_root
from extsloader.image.superblock import read_squashfs
from extsloader.model.errors import MachineError
from extsloader.model.ids import Digest, ServiceName
from extsloader.model.manifest import Service, StoredImage
from extsloader.model.plan import MountKind, MountStep
from extsloader.model.reasons import Code
from tests.fakes.real_mounts import loops_of, mkdir, mounts_at, stored

pytestmark = [pytest.mark.hostile, pytest.mark.root]

SERVICE = Service(name=ServiceName("up"), bundle="containers/services/up")
PLAIN = ("-noI", "-noD", "-noF", "-noX")  # nothing is compressed: names and inodes can be edited

_BASIC_FILE_SIZE, _LINK_SIZE = 28, 20  # offsets in their inodes (squashfs_fs.h)


class Device:
    """A run directory, and the image that is mounted there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = folder / "run"
        self.run.mkdir(0o700)
        self.tree = folder / "tree"
        self.bundle = self.tree / SERVICE.bundle
        self.bundle.mkdir(parents=True)
        self.mounts = Mounts(str(self.run))

    def build(self, *options: str, edit: Callable[[bytearray], None] | None = None) -> Path:
        path = self.folder / "image"
        argv: list[str | Path] = [
            "mksquashfs",
            self.tree,
            path,
            "-quiet",
            "-no-progress",
            "-noappend",
            *options,
        ]
        subprocess.run(argv, check=True, capture_output=True)
        content = bytearray(path.read_bytes())
        if edit:
            edit(content)
            path.write_bytes(content)
        assert read_squashfs(lambda at, length: bytes(content[at : at + length]))
        return path

    def mount(self, path: Path) -> Path:
        digest = Digest(sha256(str(self.folder).encode()).hexdigest())
        descriptor = os.open(path, os.O_RDONLY)
        try:
            return Path(self.mounts.mount_image(self.image(path, digest), descriptor))
        finally:
            os.close(descriptor)

    def image(self, path: Path, digest: Digest) -> StoredImage:
        return stored(path, path.stat().st_size, digest)

    def read_bundle(self, mountpoint: Path, service: Service = SERVICE) -> str | Code:
        try:
            return self.mounts.read_bundle(str(mountpoint), service).config
        except MachineError as error:
            return error.problem.code


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    yield Device(tmp_path)
    sweep(str(tmp_path))
    assert leftovers(str(tmp_path)) == ()
    assert loops_of(tmp_path) == []


def entry_of(content: bytearray, name: bytes) -> int:
    """Where the directory entry is: offset, inode number, type, size of the name minus 1."""
    wanted = struct.pack("<H", len(name) - 1) + name
    assert content.count(wanted) == 1
    return content.index(wanted) - 6


def test_an_image_without_any_edit_is_read(device: Device) -> None:
    (device.bundle / "config.json").write_text("good")
    assert device.read_bundle(device.mount(device.build(*PLAIN))) == "good"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"up", b".."),
        (b"up", b"u/"),
        (b"up", b"u\0"),
        (b"up", b"./"),
        (b"config.json", b"../../../.."),
    ],
    ids=["h116-dot-dot", "h116-slash", "h116-nul", "h116-dot", "h116-climbing-file"],
)
def test_names_that_no_directory_has(device: Device, old: bytes, new: bytes) -> None:
    (device.bundle / "config.json").write_text("good")

    def edit(content: bytearray) -> None:
        at = entry_of(content, old) + 8
        content[at : at + len(new)] = new

    assert device.read_bundle(device.mount(device.build(*PLAIN, edit=edit))) is Code.BUNDLE


def test_h116_a_directory_that_is_its_own_ancestor(device: Device) -> None:
    """`up` is the root again: a walk would never end, and a read by path ends with the path."""
    (device.bundle / "config.json").write_text("good")

    def edit(content: bytearray) -> None:
        (root,) = struct.unpack_from("<Q", content, 32)
        struct.pack_into("<H", content, entry_of(content, b"up"), root & 0xFFFF)

    mountpoint = device.mount(device.build(*PLAIN, edit=edit))
    assert device.read_bundle(mountpoint) is Code.BUNDLE


def test_h116_two_entries_of_one_name_and_names_out_of_order(device: Device) -> None:
    """One of the two is read, or none; which one was signed with the image."""
    (device.bundle / "config.json").write_text("good")
    (device.bundle / "aonfig.json").write_text("evil")

    def edit(content: bytearray) -> None:
        content[entry_of(content, b"aonfig.json") + 8] = ord("c")

    found = device.read_bundle(device.mount(device.build(*PLAIN, edit=edit)))
    assert found in ("good", "evil", Code.BUNDLE)


@pytest.mark.parametrize("size", [(1 << 20) + 1, (1 << 32) - 1], ids=["h117-1MiB", "h117-4GiB"])
def test_a_file_that_claims_to_be_huge_is_not_read(device: Device, size: int) -> None:
    (device.bundle / "config.json").write_text("x" * 4321)

    def edit(content: bytearray) -> None:
        at = content.index(struct.pack("<I", 4321))
        struct.pack_into("<I", content, at, size)

    assert device.read_bundle(device.mount(device.build(*PLAIN, edit=edit))) is Code.BUNDLE


@pytest.mark.parametrize("size", [0, 65_536, (1 << 32) - 1])
def test_h117_a_link_of_an_impossible_size(device: Device, size: int) -> None:
    (device.bundle / "config.json").symlink_to("/etc/hostname")

    def edit(content: bytearray) -> None:
        at = content.index(struct.pack("<I", len("/etc/hostname")) + b"/etc/hostname")
        struct.pack_into("<I", content, at, size)

    assert device.read_bundle(device.mount(device.build(*PLAIN, edit=edit))) is Code.BUNDLE


def test_h118_a_small_image_of_a_large_file(device: Device) -> None:
    """What is stored is what was compressed; nothing is unpacked but blocks that are read."""
    with (device.bundle / "config.json").open("wb") as file:
        file.truncate(1 << 30)
    image = device.build("-b", "1M")
    assert image.stat().st_size < 100_000
    assert device.read_bundle(device.mount(image)) is Code.BUNDLE


@pytest.fixture
def layers(device: Device) -> tuple[str, str]:
    """The directory `shown` of the upper one claims to be `secret` of the lower one."""
    (device.bundle / "top/shown").mkdir(parents=True)
    (device.bundle / "base/secret").mkdir(parents=True)
    (device.bundle / "base/secret/file").write_text("secret")
    os.setxattr(device.bundle / "top/shown", "trusted.overlay.redirect", b"/secret")
    bundle = device.mount(device.build()) / SERVICE.bundle
    return f"{bundle}/top", f"{bundle}/base"


def merge(device: Device, layers: tuple[str, str], *options: str) -> Path:
    merged = device.run / "merged"
    step = MountStep(
        kind=MountKind.MOUNT,
        target=str(merged),
        fs_type="overlay",
        source="overlay",
        options=(f"lowerdir={':'.join(layers)}", *options),
    )
    device.mounts.apply((mkdir(merged), step))
    return merged / "shown/file"


def test_h119_without_our_options_the_kernel_follows_a_redirect(
    device: Device, layers: tuple[str, str]
) -> None:
    assert merge(device, layers, "redirect_dir=follow").read_text() == "secret"


@pytest.mark.parametrize("evil", ["redirect_dir=on", "metacopy=on", "redirect_dir=follow"])
def test_h119_the_last_word_counts(device: Device, layers: tuple[str, str], evil: str) -> None:
    with pytest.raises(PermissionError):
        merge(device, layers, evil, *SAFE_OVERLAY).read_text()


def test_h119_the_root_of_a_service_follows_no_redirect(
    device: Device, layers: tuple[str, str]
) -> None:
    place = Place(
        service=SERVICE,
        image="",
        run=str(device.run),
        state="",
        digest="0" * 12,
        upper_size=1 << 20,
    )
    device.mounts.apply(tuple(mount_root(layers, (), place)))
    (mounted,) = mounts_at(Path(place.rootfs))
    assert {"nosuid", "nodev"} <= set(mounted.options)
    with pytest.raises(PermissionError):
        (Path(place.rootfs) / "shown/file").read_text()


def test_h120_devices_and_setuid_programs_are_inert(device: Device, tmp_path: Path) -> None:
    os.mknod(device.tree / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (device.tree / "su").write_text("#!/bin/sh")
    (device.tree / "su").chmod(0o4755)
    image = device.build()

    mountpoint = device.mount(image)
    with pytest.raises(PermissionError):
        (mountpoint / "null").open("rb")
    assert os.statvfs(mountpoint / "su").f_flag & (os.ST_NOSUID | os.ST_NODEV)

    node = next(m.source for m in mounts_at(mountpoint))
    unguarded = tmp_path / "unguarded"
    unguarded.mkdir()
    mount(node, str(unguarded), "squashfs", MS_RDONLY)  # a mount with no other flag
    (unguarded / "null").open("rb").close()
    assert not os.statvfs(unguarded / "su").f_flag & os.ST_NOSUID


def test_h121_two_manifests_of_one_image_are_one_mount(device: Device) -> None:
    (device.bundle / "config.json").write_text("good")
    image = device.build()
    mountpoint = device.mount(image)
    assert device.mount(image) == mountpoint
    assert len(mounts_at(mountpoint)) == 1
    assert len(loops_of(device.folder)) == 1
