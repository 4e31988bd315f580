"""The two lines of EVE's core image: everything that is acted on hangs on the root hash."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from extsloader.image.envelope import parse_envelope
from extsloader.image.trailer import MAX_ENVELOPE, append_trailer
from extsloader.image.verity import append_tree
from extsloader.model.errors import ImageRefusedError
from extsloader.model.helper import Request
from extsloader.model.manifest import ImageSpec, StoredImage
from extsloader.model.reasons import Code, Problem
from extsloader.model.source import SourceKind
from extsloader.verify.offline import verify_file
from extsloader.verify.pinned import PINNED, Pin, read_pin, read_pinned, wrap
from extsloader.verify.pipeline import verify
from tests.fakes import images
from tests.fakes.images import names


def ignore(_done: int, _total: int) -> None:
    pass


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "image"


@pytest.fixture
def spec(image: Path) -> ImageSpec:
    """What is true of an image that the core image names."""
    found = images.unsigned(image, 700_000)  # two blocks of digests, and one above them
    pin(image, found)
    return found


def pin(image: Path, spec: ImageSpec) -> None:
    text = f"{spec.verity.root_hash}\n{spec.verity.hash_offset}\n"
    (image.parent / "root-hash").write_text(text)


def ask(path: Path) -> Request:
    return Request(
        source=images.file_source(path),
        machine=images.MACHINE,
        keys=str(path.parent / "no-keys"),
        root_hash=str(path.parent / "root-hash"),
        store=images.store_in(path.parent),
        wall=1_800_000_000.0,
        reserve=0,
    )


def accepted(asked: Request) -> StoredImage:
    found, descriptor = verify(asked, ignore)
    os.close(descriptor)
    return found


def refusal(asked: Request) -> Code:
    with pytest.raises(ImageRefusedError) as caught:
        verify(asked, ignore)
    return caught.value.problem.code


def stored(image: Path, spec: ImageSpec) -> Path:
    return image.parent / "store" / f"{spec.digest}.img"


def spoil(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def test_the_pinned_image_needs_neither_signature_nor_keys(image: Path, spec: ImageSpec) -> None:
    found = accepted(ask(image))
    assert (found.manifest.image, found.pinned, found.key_ids) == (spec, True, ())
    assert found.manifest.services == ()
    assert found.path == str(stored(image, spec))
    assert stored(image, spec).read_bytes().startswith(image.read_bytes())


@pytest.mark.usefixtures("spec")
def test_it_proves_itself_again_in_the_store_and_from_the_medium(image: Path) -> None:
    first = accepted(ask(image))
    inode = Path(first.path).stat().st_ino
    kept = images.file_source(Path(first.path), SourceKind.STORED)
    assert accepted(replace(ask(image), source=kept)) == first
    assert accepted(ask(image)) == first
    assert Path(first.path).stat().st_ino == inode


def test_a_file_put_into_the_store_under_its_own_digest_is_refused(
    image: Path, spec: ImageSpec
) -> None:
    """Its digest is right, and the one block of the tree that is looked at first is as well."""
    forged = image.read_bytes()[:5000] + b"forged" + image.read_bytes()[5006:]
    name = f"{sha256(forged).hexdigest()}.img"
    planted = Path(images.store_in(image.parent), name)
    planted.write_bytes(forged)
    kept = images.file_source(planted, SourceKind.STORED)
    assert refusal(replace(ask(image), source=kept)) is Code.VERITY
    medium = image.parent / "medium"
    medium.write_bytes(forged)
    assert refusal(ask(medium)) is Code.VERITY
    assert spec.size == len(forged)


@pytest.mark.parametrize("part", ["data", "tree"])
def test_a_byte_that_differs_is_refused_and_nothing_is_kept(
    image: Path, spec: ImageSpec, part: str
) -> None:
    spoil(image, 5000 if part == "data" else spec.size - 1)
    assert refusal(ask(image)) is Code.VERITY
    assert names(image.parent / "store") == []


@pytest.mark.parametrize("field", [0, 8, 12, 32, 64, 68, 72, 80, 88])
def test_another_superblock_of_the_tree_is_another_image(
    image: Path, spec: ImageSpec, field: int
) -> None:
    """Algorithm, salt and sizes are untrusted; what they say has to give the pinned root hash."""
    spoil(image, spec.verity.hash_offset + field)
    assert refusal(ask(image)) is Code.VERITY
    assert names(image.parent / "store") == []


def test_the_uuid_means_nothing(image: Path, spec: ImageSpec) -> None:
    spoil(image, spec.verity.hash_offset + 16)
    found = accepted(ask(image))
    assert found.manifest.image.verity == spec.verity
    assert found.digest != spec.digest


@pytest.mark.usefixtures("spec")
def test_another_image_goes_the_way_of_signatures(image: Path) -> None:
    other = image.parent / "other"
    images.unsigned(other, 200_000)
    assert refusal(ask(other)) is Code.VERITY
    images.signed(other, size=200_000)
    assert refusal(ask(other)) is Code.KEYS
    keys = images.key_directory(image.parent / "keys", 1)
    assert not accepted(replace(ask(other), keys=keys)).pinned


@pytest.mark.usefixtures("spec")
def test_the_word_of_the_core_image_goes_before_what_an_image_says_of_itself(image: Path) -> None:
    append_trailer(str(image), b"no envelope")
    assert accepted(ask(image)).pinned


def test_a_medium_that_is_cut_short_is_refused(image: Path, spec: ImageSpec) -> None:
    os.truncate(image, spec.size - 4096)
    assert refusal(ask(image)) is Code.SIZE


def test_a_core_image_that_names_another_one_refuses_what_is_stored(
    image: Path, spec: ImageSpec
) -> None:
    kept = accepted(ask(image))
    other = image.parent / "other"
    pin(image, images.unsigned(other, 200_000))
    source = images.file_source(Path(kept.path), SourceKind.STORED)
    assert refusal(replace(ask(image), source=source)) is Code.KEYS
    assert spec.size


def test_a_pinned_image_can_be_revoked(image: Path, spec: ImageSpec) -> None:
    keys = Path(images.key_directory(image.parent / "keys"))
    policy = f'{{"threshold": 1, "revoked_images": ["{spec.digest}"]}}'
    (keys / "policy.json").write_text(policy)
    assert refusal(replace(ask(image), keys=str(keys))) is Code.REVOKED
    (keys / "policy.json").write_text("{")
    assert refusal(replace(ask(image), keys=str(keys))) is Code.KEYS


def test_one_block_of_data_is_its_own_tree(tmp_path: Path, image: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    shutil.copy("/etc/hostname", root)
    image.write_bytes(images.squashfs_of(root))
    verity = append_tree(str(image), salt=images.SALT, uuid=images.UUID_)
    assert verity.data_blocks == 1
    lines = f"{verity.root_hash.upper()}\r\n{verity.hash_offset}"
    (tmp_path / "root-hash").write_text(lines)
    assert accepted(ask(image)).manifest.image.verity == verity


def test_the_same_by_hand(image: Path, spec: ImageSpec) -> None:
    asked = ask(image)
    found = verify_file(str(image), asked.keys, root_hash=asked.root_hash)
    assert isinstance(found, StoredImage)
    assert (found.manifest.image, found.pinned) == (spec, True)
    spoil(image, 5000)
    found = verify_file(str(image), asked.keys, root_hash=asked.root_hash)
    assert isinstance(found, Problem)
    assert found.code is Code.VERITY


@pytest.mark.parametrize("read", [read_pin, lambda path: read_pinned(str(Path(path).parent))])
def test_a_file_that_cannot_be_read_is_not_taken_for_none(
    tmp_path: Path, read: Callable[[str], object]
) -> None:
    assert read(str(tmp_path / "pinned.json")) is None
    (tmp_path / "pinned.json").mkdir()
    with pytest.raises(ImageRefusedError, match="is a directory") as caught:
        read(str(tmp_path / "pinned.json"))
    assert caught.value.problem.code is Code.KEYS


def test_two_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "root-hash"
    assert read_pin(str(path)) is None
    path.write_text("ab" * 32 + "\n4096\n")
    assert read_pin(str(path)) == Pin(root_hash="ab" * 32, size=4096)


@pytest.mark.parametrize(
    "text",
    [
        *("", "\n", "ab" * 32, "ab" * 32 + "\n", "4096\n" + "ab" * 32, "ab" * 31 + "\n4096"),
        *("ab" * 32 + "\n0", "ab" * 32 + "\n4097", "ab" * 32 + "\n-4096", "ab" * 32 + "\n+4096"),
        *(
            "xy" * 32 + "\n4096",
            "ab" * 32 + "\n4096\n4096",
            "ab" * 32 + "\n4096 " + " " * 300 + "1",
        ),
    ],
)
def test_lines_that_make_no_sense_mean_no_image(tmp_path: Path, image: Path, text: str) -> None:
    images.unsigned(image)
    (tmp_path / "root-hash").write_text(text)
    assert refusal(ask(image)) is Code.KEYS


def test_what_is_pinned_are_the_bytes_of_the_file(tmp_path: Path) -> None:
    assert read_pinned(str(tmp_path)) is None
    (tmp_path / PINNED).write_bytes(b"any bytes")
    assert read_pinned(str(tmp_path)) == b"any bytes"
    (tmp_path / PINNED).write_bytes(bytes(MAX_ENVELOPE + 1))
    assert read_pinned(str(tmp_path)) == bytes(MAX_ENVELOPE)


def test_an_envelope_without_signatures_vouches_for_nothing_by_itself() -> None:
    with pytest.raises(ImageRefusedError) as caught:
        parse_envelope(wrap(b"{}"))
    assert caught.value.problem.code is Code.THRESHOLD
