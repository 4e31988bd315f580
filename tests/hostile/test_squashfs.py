"""Squashfs images of a signer's broken or evil tool: the signature is good, the bytes are not.

What the superblock gives away is refused before the kernel is asked to mount anything, as no
squashfs at all (E_FS_TYPE). What only a walk would find (directories) nobody here walks: of an
image's tree the agent reads two files of each service, and those rows are about them.
"""

import os
import struct
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from shutil import which

import pytest

from extsloader.image import trailer
from extsloader.image.superblock import read_squashfs
from extsloader.image.trailer import encode_trailer
from extsloader.image.verity import build_tree
from extsloader.model.errors import ImageRefusedError
from extsloader.model.helper import Request
from extsloader.model.ids import Digest
from extsloader.model.reasons import Code
from extsloader.verify.pipeline import verify
from tests.fakes import images

pytestmark = pytest.mark.hostile

ABSENT = (1 << 64) - 1
MOUNTS = ("mount", "fsopen", "fsconfig", "fsmount", "fspick", "move_mount", "open_tree")
EDITS = [  # row and what is wrong, offset, struct format, value
    ("h109-no-magic", 0, "4s", b"\0\0\0\0"),
    ("h109-swapped-magic", 0, "4s", b"sqsh"),
    ("h109-version-3", 28, "<H", 3),
    ("h109-version-5", 28, "<H", 5),
    ("h109-version-4.1", 30, "<H", 1),
    ("h110-lzma", 20, "<H", 2),
    ("h110-lzo", 20, "<H", 3),
    ("h110-unknown-compressor", 20, "<H", 99),
    ("h111-log-of-another-size", 22, "<H", 16),
    ("h111-block-size-0", 12, "<I", 0),
    ("h111-block-size-3", 12, "<I", 3),
    ("h111-block-size-2-GiB", 12, "<I", 1 << 31),
    ("h112-used-less-than-its-tables", 40, "<Q", 4096),
    ("h112-used-negative", 40, "<q", -1),
    ("h113-ids-outside", 48, "<Q", 1 << 40),
    ("h113-ids-absent", 48, "<Q", ABSENT),
    ("h113-xattrs-outside", 56, "<Q", 1 << 40),
    ("h113-xattrs-before-ids", 56, "<Q", 96),
    ("h113-inodes-in-superblock", 64, "<Q", 95),
    ("h113-inodes-behind-directories", 64, "<Q", 1 << 40),
    ("h113-inodes-absent", 64, "<Q", ABSENT),
    ("h113-directories-before-inodes", 72, "<Q", 0),
    ("h113-directories-absent", 72, "<Q", ABSENT),
    ("h113-fragments-before-directories", 80, "<Q", 96),
    ("h113-exports-before-directories", 88, "<Q", 96),
    ("h113-fragments-that-need-more-room", 16, "<I", (1 << 32) - 1),
    ("h114-no-inodes", 4, "<I", 0),
    ("h114-all-inodes", 4, "<I", (1 << 32) - 1),
    ("h114-ids-0-or-65536", 26, "<H", 0),
    ("h114-ids-65535", 26, "<H", 65535),
]


def sign_edited(path: Path, offset: int, form: str, value: int | bytes) -> None:
    """An image that was changed before it was measured and signed."""
    image = images.unsigned(path)
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, offset, value)
    path.write_bytes(content)
    with path.open("r+b") as file:
        levels, root = build_tree(
            file.fileno(), image.verity.data_blocks, bytes.fromhex(image.verity.salt)
        )
        file.seek(image.verity.hash_offset + 4096)
        file.write(b"".join(levels))
    digest = Digest(sha256(path.read_bytes()).hexdigest())
    evil = replace(image, digest=digest, verity=replace(image.verity, root_hash=root.hex()))
    envelope = images.envelope(images.manifest(evil))
    with path.open("ab") as file:
        file.write(encode_trailer(image.size, envelope))


def ignore(_done: int, _total: int) -> None:
    pass


def ask(path: Path) -> Request:
    return Request(
        source=images.file_source(path),
        machine=images.MACHINE,
        keys=str(path.parent / "keys"),
        store=images.store_in(path.parent),
        wall=1_800_000_000.0,
        reserve=0,
    )


def verdict(path: Path) -> Code | None:
    """The code of the refusal, after which the store is empty; None for an image that is kept."""
    try:
        _, descriptor = verify(ask(path), ignore)
    except ImageRefusedError as error:
        assert images.names(path.parent / "store") == []
        return error.problem.code
    os.close(descriptor)
    return None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    images.key_directory(tmp_path / "keys", 1)
    return tmp_path / "image"


def test_the_guards_take_an_image_that_was_edited_in_the_same_way_without_harm(path: Path) -> None:
    sign_edited(path, 8, "<I", 12345)  # the time of its making
    assert verdict(path) is None


@pytest.mark.parametrize(
    ("offset", "form", "value"), [row[1:] for row in EDITS], ids=[row[0] for row in EDITS]
)
def test_a_signed_superblock_that_cannot_be_is_refused(
    path: Path, offset: int, form: str, value: int | bytes
) -> None:
    sign_edited(path, offset, form, value)
    assert verdict(path) is Code.FS_TYPE


@pytest.mark.parametrize(
    ("offset", "form", "value"), [row[1:] for row in EDITS], ids=[row[0] for row in EDITS]
)
def test_without_the_guards_such_a_superblock_is_handed_to_the_kernel(
    path: Path, monkeypatch: pytest.MonkeyPatch, offset: int, form: str, value: int | bytes
) -> None:
    sign_edited(path, offset, form, value)
    honest = read_squashfs(lambda at, length: images.squashfs()[at : at + length])
    monkeypatch.setattr(trailer, "read_squashfs", lambda _: honest)
    assert verdict(path) is None


def test_h112_a_file_system_that_is_longer_than_the_image(path: Path) -> None:
    sign_edited(path, 40, "<Q", 1 << 40)
    assert verdict(path) is Code.ENVELOPE  # behind the end of the medium there is none


def test_h112_a_tail_that_no_file_system_needs(path: Path) -> None:
    """The signer measured junk as well: then the manifest contradicts itself."""
    image = images.unsigned(path)
    content = path.read_bytes() + bytes(8192)
    path.write_bytes(content)
    image = replace(image, size=len(content), digest=Digest(sha256(content).hexdigest()))
    path.with_name("image.manifest.json").write_bytes(images.envelope(images.manifest(image)))
    assert verdict(path) is Code.SCHEMA


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """A signed image, and its envelope once more."""
    path = tmp_path_factory.mktemp("extst-whole") / "image"
    manifest = images.signed(path)
    return path.read_bytes(), images.envelope(manifest)


@pytest.mark.parametrize("hundredth", range(100))
def test_h115_cut_off_at_any_point(path: Path, whole: tuple[bytes, bytes], hundredth: int) -> None:
    content, envelope = whole
    path.write_bytes(content[: len(content) * hundredth // 100])
    allowed = {Code.FS_TYPE, Code.ENVELOPE, Code.LAYOUT, Code.SIZE}
    assert verdict(path) in allowed
    path.with_name("image.manifest.json").write_bytes(envelope)
    assert verdict(path) in allowed  # also with a whole envelope beside it


@pytest.mark.skipif(not which("strace"), reason="needs strace")
@pytest.mark.parametrize("offset", [4096, 100_000, 290_000])
def test_h108_bytes_that_were_not_signed_are_never_mounted(path: Path, offset: int) -> None:
    """The kernel would mount them, as test_squashfs_trees.py shows: only the digest tells."""
    images.signed(path)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"evil")
    log = path.with_name("calls")
    code = f"from {__name__} import *; print(verdict(Path({str(path)!r})))"
    traced = ("-e", f"trace={','.join(MOUNTS)},exit_group")
    done = subprocess.run(
        ["strace", "-f", "-qq", "-o", str(log), *traced, sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.strip() == Code.DIGEST
    calls = log.read_text()
    assert "exit_group(" in calls  # strace saw it to its end
    assert not any(f"{name}(" in calls for name in MOUNTS)
