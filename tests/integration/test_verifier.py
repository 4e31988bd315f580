"""Real helpers on real loop devices: from a medium to a descriptor that can be mounted."""

import asyncio
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from extsloader.adapters.verifier import Verifier
from extsloader.image.schema import encode_manifest
from extsloader.image.signing import sign
from extsloader.image.trailer import append_trailer
from extsloader.model.errors import ImageRefusedError
from extsloader.model.helper import Request
from extsloader.model.ids import SourceId
from extsloader.model.reasons import Code
from extsloader.model.settings import Timeouts
from extsloader.model.source import Filters, FsType, Source, SourceKind, device_generation
from extsloader.model.trust import Bounds
from extsloader.verify.pipeline import verify
from tests.fakes import ext4, images
from tests.fakes.images import file_source, names

pytestmark = pytest.mark.root

LOOP_CTL_ADD, LOOP_CTL_REMOVE = 0x4C80, 0x4C81  # include/uapi/linux/loop.h


def run(*argv: str | Path) -> None:
    subprocess.run(argv, check=True, capture_output=True)


def ignore(_done: int, _total: int) -> None:
    pass


class Loop:
    """A loop device of our own."""

    def __init__(self) -> None:
        self.number = self._control(LOOP_CTL_ADD, -1)
        self.node = f"/dev/loop{self.number}"

    def attach(self, backing: Path) -> Source:
        run("losetup", self.node, backing)
        return self.source()

    def source(self) -> Source:
        block = Path(f"/sys/block/loop{self.number}")
        devno = (block / "dev").read_text().strip()
        generation = device_generation((block / "diskseq").read_text().strip(), 0, devno)
        return Source(
            id=SourceId(self.node, generation),
            kind=SourceKind.DEVICE,
            size=int((block / "size").read_text()) * 512,
            devno=devno,
        )

    def detach(self) -> None:
        run("losetup", "-d", self.node)

    def remove(self) -> None:
        subprocess.run(["losetup", "-d", self.node], check=False, capture_output=True)
        self._control(LOOP_CTL_REMOVE, self.number)

    def _control(self, request: int, number: int) -> int:
        with Path("/dev/loop-control").open("rb") as file:
            return fcntl.ioctl(file, request, number)


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.remove()


@pytest.fixture
def keys(tmp_path: Path) -> str:
    return images.key_directory(tmp_path / "keys", 1)


@pytest.fixture
def verifier(tmp_path: Path, keys: str) -> Verifier:
    return Verifier(
        keys=keys,
        store=images.store_in(tmp_path),
        machine=images.MACHINE,
        timeouts=Timeouts(),
        files=Filters().files,
        wall=lambda: 1_800_000_000.0,
        python=sys.executable,
    )


@pytest.fixture
def ask(tmp_path: Path, keys: str) -> Callable[[Source], Request]:
    def ask(source: Source) -> Request:
        store = images.store_in(tmp_path)
        return Request(source=source, machine=images.MACHINE, keys=keys, store=store, reserve=0)

    return ask


@contextmanager
def tmpfs(target: Path, options: str) -> Iterator[Path]:
    target.mkdir()
    run("mount", "-t", "tmpfs", "-o", options, "extst-tmpfs", target)
    try:
        yield target
    finally:
        run("umount", target)


def refusal(request: Request, progress: Callable[[int, int], None] = ignore) -> tuple[Code, str]:
    with pytest.raises(ImageRefusedError) as caught:
        verify(replace(request, clock_floor=1.0), progress)
    return caught.value.problem.code, caught.value.problem.message


async def test_an_image_on_a_larger_medium_is_stored_and_can_be_mounted(
    tmp_path: Path, loop: Loop, verifier: Verifier
) -> None:
    path, mounted = tmp_path / "image", tmp_path / "mounted"
    manifest = images.signed(path)
    os.truncate(path, 4 << 20)
    source = loop.attach(path)
    assert (await verifier.probe(source)).fs_type is FsType.SQUASHFS
    image, descriptor = await verifier.verify(source, Bounds(), ignore)
    loop.detach()
    assert image.manifest == manifest
    assert names(tmp_path / "store") == [f"{image.digest}.img"]
    with os.fdopen(descriptor, "rb") as file, ExitStack() as undo:
        assert not file.writable()
        mounted.mkdir()
        node = f"/proc/{os.getpid()}/fd/{file.fileno()}"
        run("mount", "-t", "squashfs", "-o", "ro,loop", node, mounted)
        undo.callback(run, "umount", mounted)
        assert "content" in names(mounted)
    again, descriptor = await verifier.verify(
        file_source(Path(image.path), SourceKind.STORED), Bounds(), ignore
    )
    assert again == image
    os.close(descriptor)


async def test_an_image_in_pieces_on_a_fat_stick_is_stored_without_any_mount(
    tmp_path: Path, loop: Loop, verifier: Verifier
) -> None:
    path, stick = tmp_path / "image", tmp_path / "stick"
    manifest = images.signed(path)
    with stick.open("wb") as file:
        file.truncate(8 << 20)
    run("mkfs.vfat", "-n", "STICK", stick)
    filler = tmp_path / "filler"
    filler.write_bytes(bytes(20_000))
    for number in range(8):
        run("mcopy", "-i", stick, filler, f"::{number}")
    for number in range(0, 8, 2):
        run("mdel", "-i", stick, f"::{number}")
    run("mcopy", "-i", stick, path, "::RootFS-pkgs.img")
    source = loop.attach(stick)

    found = await verifier.probe(source)
    image, descriptor = await verifier.verify(source, Bounds(), ignore)

    assert (found.fs_type, found.label, found.file) == (FsType.VFAT, "STICK", "rootfs-pkgs.img")
    assert image.manifest == manifest
    with os.fdopen(descriptor, "rb") as file:
        assert file.read() == path.read_bytes()


async def test_f22_an_ext4_with_a_dirty_journal_is_read_and_not_replayed(
    tmp_path: Path, loop: Loop, verifier: Verifier
) -> None:
    """The stick is pulled while it is mounted and written to; afterwards no byte has changed."""
    path, disk, stick = tmp_path / "image", tmp_path / "disk", tmp_path / "stick"
    manifest = images.signed(path)
    ext4.make(disk, size=32 << 20)
    with mounted(disk, tmp_path / "mounted") as folder:
        shutil.copy(path, folder / "pkgs.img")
        os.sync()
        (folder / "later").touch()  # the journal has what the file system does not have yet
        folder_descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(folder_descriptor)
        os.close(folder_descriptor)
        shutil.copy(disk, stick)
    before = sha256(stick.read_bytes()).hexdigest()
    source = loop.attach(stick)

    found = await verifier.probe(source)
    image, descriptor = await verifier.verify(source, Bounds(), ignore)

    assert (found.fs_type, found.file, found.unclean) == (FsType.EXT, "pkgs.img", True)
    assert image.manifest == manifest
    with os.fdopen(descriptor, "rb") as file:
        assert file.read() == path.read_bytes()
    loop.detach()
    assert sha256(stick.read_bytes()).hexdigest() == before


@contextmanager
def mounted(disk: Path, folder: Path) -> Iterator[Path]:
    folder.mkdir()
    run("mount", "-t", "ext4", "-o", "loop", disk, folder)
    try:
        yield folder
    finally:
        run("umount", folder)


def test_a_fat_stick_that_is_pulled_while_its_file_is_copied_is_told_so(
    tmp_path: Path, loop: Loop, ask: Callable[[Source], Request]
) -> None:
    path, stick = tmp_path / "image", tmp_path / "stick"
    images.signed(path, size=16 << 20)
    with stick.open("wb") as file:
        file.truncate(32 << 20)
    run("mkfs.vfat", stick)
    run("mcopy", "-i", stick, path, "::pkgs.img")
    request = replace(ask(loop.attach(stick)), files=("pkgs.img",))

    def shrink(_done: int, _total: int) -> None:
        os.truncate(stick, 4 << 20)
        run("losetup", "--set-capacity", loop.node)

    assert refusal(request, shrink)[0] is Code.GONE
    assert names(tmp_path / "store") == []


async def test_a_refusal_of_the_real_helper_keeps_code_sentence_and_hint(
    tmp_path: Path, verifier: Verifier
) -> None:
    path = tmp_path / "image"
    images.signed(path, 2)
    with pytest.raises(ImageRefusedError, match="none of the 1 accepted keys signed it") as caught:
        await verifier.verify(file_source(path), Bounds(), ignore)
    assert caught.value.problem.code is Code.SIGNATURE
    assert caught.value.problem.hint.startswith("sign the image with a key of this device")
    assert names(tmp_path / "store") == []


async def test_the_largest_manifest_comes_through(tmp_path: Path, verifier: Verifier) -> None:
    path = tmp_path / "image"
    needs = {f"service-{n:02}": f"service-{n - 1:02}" if n else "" for n in range(64)}
    manifest = images.manifest(images.unsigned(path), needs)
    fields = {"version": "v" * 128, "services": manifest.services}
    manifest = replace(manifest, **fields)  # type: ignore[arg-type]
    compact = json.loads(encode_manifest(manifest))
    for service in compact["services"]:
        service["readiness"] = {"kind": "exec", "command": ["x" * 400]}
        for member in ("resources", "restart", "stop", "wants", "after"):
            del service[member]
    payload = json.dumps(compact).encode()
    append_trailer(str(path), sign(payload, [images.private_key()]))
    image, descriptor = await verifier.verify(file_source(path), Bounds(), ignore)
    assert len(image.manifest.services) == 64
    os.close(descriptor)


async def test_cancelling_in_the_middle_leaves_neither_process_nor_file(
    tmp_path: Path, verifier: Verifier
) -> None:
    path = tmp_path / "image"
    images.signed(path, size=64 << 20)
    begun = asyncio.Event()
    before = names("/proc/self/fd")
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        task = group.create_task(
            verifier.verify(file_source(path), Bounds(), lambda *_: begun.set())
        )
        await begun.wait()
        task.cancel()
    assert task.cancelled()
    assert names(tmp_path / "store") == []
    assert names("/proc/self/fd") == before


def test_a_medium_that_dies_while_it_is_copied_is_named_with_the_place(
    tmp_path: Path, loop: Loop, ask: Callable[[Source], Request]
) -> None:
    path = tmp_path / "image"
    images.signed(path, size=16 << 20)
    source = loop.attach(path)
    code, message = refusal(ask(source), lambda *_: os.truncate(path, 4 << 20))
    assert code is Code.IO
    assert "input/output error at byte " in message
    assert names(tmp_path / "store") == []


def test_a_medium_that_shrinks_while_it_is_copied_is_gone(
    tmp_path: Path, loop: Loop, ask: Callable[[Source], Request]
) -> None:
    path = tmp_path / "image"
    images.signed(path, size=16 << 20)
    source = loop.attach(path)

    def shrink(_done: int, _total: int) -> None:
        os.truncate(path, 4 << 20)
        run("losetup", "--set-capacity", loop.node)

    assert refusal(ask(source), shrink)[0] is Code.GONE
    assert names(tmp_path / "store") == []


def test_another_medium_under_the_same_name_is_gone(
    tmp_path: Path, loop: Loop, ask: Callable[[Source], Request]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    images.signed(first)
    second.write_bytes(first.read_bytes())
    seen = loop.attach(first)
    loop.detach()
    now = loop.attach(second)
    assert (now.devno, now.size) == (seen.devno, seen.size), "only DISKSEQ tells them apart"
    assert refusal(ask(seen))[0] is Code.GONE
    os.close(verify(replace(ask(now), clock_floor=1.0), ignore)[1])


def test_a_medium_that_is_being_written_is_busy(
    tmp_path: Path, loop: Loop, ask: Callable[[Source], Request]
) -> None:
    path = tmp_path / "image"
    images.signed(path)
    source = loop.attach(path)
    with Path(loop.node).open("rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        assert refusal(ask(source))[0] is Code.BUSY
    os.close(verify(replace(ask(source), clock_floor=1.0), ignore)[1])


@pytest.mark.parametrize("spare", [-4096, 0, 4096])
def test_a_disk_that_is_full_before_or_while_copying_keeps_nothing(
    tmp_path: Path, ask: Callable[[Source], Request], spare: int
) -> None:
    path = tmp_path / "image"
    size = images.signed(path).image.size
    with tmpfs(tmp_path / "small", f"size={size + spare}") as small:
        request = replace(ask(file_source(path)), store=str(small), clock_floor=1.0)
        if spare < 4096:
            assert refusal(request)[0] is Code.RESOURCE
            assert names(small) == []
        else:
            os.close(verify(request, ignore)[1])


def test_a_disk_without_inodes_is_full(tmp_path: Path, ask: Callable[[Source], Request]) -> None:
    path = tmp_path / "image"
    images.signed(path)
    with tmpfs(tmp_path / "small", "size=1m,nr_inodes=1") as small:
        request = replace(ask(file_source(path)), store=str(small))
        assert refusal(request)[0] is Code.RESOURCE


def test_a_read_only_disk_is_a_reason_of_its_own(
    tmp_path: Path, ask: Callable[[Source], Request]
) -> None:
    path = tmp_path / "image"
    images.signed(path)
    with tmpfs(tmp_path / "small", "size=1m,ro") as small:
        code, message = refusal(replace(ask(file_source(path)), store=str(small)))
    assert code is Code.IO
    assert message == "cannot write the store: read-only file system"


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_not_read_and_does_not_block(
    tmp_path: Path, ask: Callable[[Source], Request], make: Callable[[Path], None]
) -> None:
    path = tmp_path / "image"
    make(path)
    source = replace(file_source(tmp_path), id=SourceId(str(path), "1-1-1"))
    assert refusal(ask(source))[0] in (Code.GONE, Code.PATH)
