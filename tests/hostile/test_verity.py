"""Hash trees that were signed and do not belong to the image, through the whole order of trust.

The tree is compared block by block when the image comes in, so no service starts on a wrong one.
What the kernel is given is tried where it has dm-verity (tests/integration/test_verity.py); here
cryptsetup's own reading in user space stands for it, with the same parameters.
"""

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from extsloader.adapters.mounts.verity import parameters
from extsloader.image.trailer import append_trailer
from extsloader.image.verity import append_tree, encode_superblock
from extsloader.model.errors import ImageRefusedError
from extsloader.model.helper import Request
from extsloader.model.ids import Digest
from extsloader.model.manifest import ImageSpec, Verity
from extsloader.model.reasons import Code
from extsloader.verify.pipeline import verify
from tests.fakes import images

pytestmark = pytest.mark.hostile


def flipped(root_hash: str, bit: int) -> str:
    return f"{int(root_hash, 16) ^ 1 << bit:064x}"


def ignore(_done: int, _total: int) -> None:
    pass


def verdict(path: Path, image: ImageSpec) -> Code | None:
    """The code of the refusal of what was signed in this way; None for an image that is kept."""
    sidecar = path.with_name(f"{path.name}.manifest.json")
    sidecar.write_bytes(images.envelope(images.manifest(image)))
    request = Request(
        source=images.file_source(path),
        machine=images.MACHINE,
        keys=str(path.parent / "keys"),
        store=images.store_in(path.parent),
        wall=1_800_000_000.0,
        reserve=0,
    )
    try:
        _, descriptor = verify(request, ignore)
    except ImageRefusedError as error:
        assert images.names(path.parent / "store") == []
        return error.problem.code
    os.close(descriptor)
    return None


def by_cryptsetup(path: Path, verity: Verity) -> bool:
    """Whether veritysetup accepts all blocks, given the parameters that our mounts give it."""
    argv = ["veritysetup", "verify", path, path, verity.root_hash, *parameters(verity)]
    return subprocess.run(list(map(str, argv)), check=False, capture_output=True).returncode == 0


def edit(path: Path, image: ImageSpec, offset: int, data: bytes) -> ImageSpec:
    """Change bytes before they are signed."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
    return replace(image, digest=Digest(sha256(path.read_bytes()).hexdigest()))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    images.key_directory(tmp_path / "keys", 1)
    return tmp_path / "image"


@pytest.fixture
def image(path: Path) -> ImageSpec:
    return images.unsigned(path)


def test_the_unedited_image_is_kept_and_cryptsetup_agrees(path: Path, image: ImageSpec) -> None:
    assert verdict(path, image) is None
    assert by_cryptsetup(path, image.verity)


@pytest.mark.parametrize("bit", [0, 1, 127, 255])
def test_h122_a_root_hash_that_is_wrong_by_one_bit(path: Path, image: ImageSpec, bit: int) -> None:
    verity = replace(image.verity, root_hash=flipped(image.verity.root_hash, bit))
    assert verdict(path, replace(image, verity=verity)) is Code.VERITY
    assert not by_cryptsetup(path, verity)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda v: {"salt": v.salt[2:] + "ff"}, Code.VERITY),
        (lambda _: {"salt": ""}, Code.VERITY),
        (lambda _: {"algorithm": "sha1"}, Code.SCHEMA),
        (lambda _: {"block_size": 512}, Code.SCHEMA),
        (lambda _: {"block_size": 8192}, Code.SCHEMA),
        (lambda v: {"data_blocks": v.data_blocks - 1}, Code.SCHEMA),
        (lambda v: {"data_blocks": v.data_blocks + 1}, Code.SCHEMA),
        (lambda v: {"hash_offset": v.hash_offset - 4096}, Code.SCHEMA),
        (lambda _: {"hash_offset": 0}, Code.SCHEMA),
        (lambda _: {"hash_offset": 4097}, Code.SCHEMA),
    ],
    ids=[
        *("other-salt", "no-salt", "sha1", "blocks-of-512", "blocks-of-8192", "one-block-less"),
        *("one-block-more", "tree-in-the-data", "tree-at-0", "tree-between-blocks"),
    ],
)
def test_h122_parameters_that_are_not_those_of_the_tree(
    path: Path, image: ImageSpec, change: Callable[[Verity], dict[str, Any]], code: Code
) -> None:
    """Where a parameter is one of a kind, its manifest is already none."""
    verity = replace(image.verity, **change(image.verity))
    assert verdict(path, replace(image, verity=verity)) is code
    assert not by_cryptsetup(path, verity)


@pytest.mark.parametrize("blocks", [-1, 1])
def test_h122_a_tree_of_more_or_fewer_blocks(path: Path, image: ImageSpec, blocks: int) -> None:
    """All of the manifest agrees with itself; the file system says another length."""
    count = image.verity.data_blocks + blocks
    verity = replace(image.verity, data_blocks=count, hash_offset=count * 4096)
    changed = replace(image, size=image.size + blocks * 4096, verity=verity)
    content = path.read_bytes().ljust(changed.size, b"\0")[: changed.size]
    path.write_bytes(content)
    changed = replace(changed, digest=Digest(sha256(content).hexdigest()))
    assert verdict(path, changed) is Code.SIZE


@pytest.mark.parametrize("cut", [4096, 8192])
def test_h122_a_tree_that_was_cut_off(path: Path, image: ImageSpec, cut: int) -> None:
    os.truncate(path, image.size - cut)
    with pytest.raises(ImageRefusedError) as refused:
        append_trailer(str(path), images.envelope(images.manifest(image)))
    assert refused.value.problem.code is Code.SIZE  # nobody can sign it by mistake
    with path.open("ab") as file:
        file.write(bytes(cut))
    changed = replace(image, digest=Digest(sha256(path.read_bytes()).hexdigest()))
    assert verdict(path, changed) is Code.VERITY


def test_h122_one_bit_of_the_data_or_of_the_tree(path: Path, image: ImageSpec) -> None:
    whole, verity = path.read_bytes(), image.verity
    for offset in (5000, verity.hash_offset - 1, verity.hash_offset + 4096, image.size - 4096):
        path.write_bytes(whole)
        changed = edit(path, image, offset, bytes([whole[offset] ^ 1]))
        assert verdict(path, changed) is Code.VERITY
        assert not by_cryptsetup(path, verity)


@pytest.mark.parametrize(
    "fields",
    [{"data_blocks": 3}, {"salt": b"other"}, {}],
    ids=["other-blocks", "other-salt", "no-superblock"],
)
def test_h123_a_superblock_that_contradicts_the_manifest(
    path: Path, image: ImageSpec, fields: dict[str, Any]
) -> None:
    """Refused when it comes in, and without any say in what the kernel is told."""
    usual: dict[str, Any] = {"uuid": UUID(int=7), "data_blocks": 1, "salt": b""}
    superblock = encode_superblock(**(usual | fields)) if fields else bytes(512)
    changed = edit(path, image, image.verity.hash_offset, superblock)
    assert verdict(path, changed) is Code.VERITY
    assert "--no-superblock" in parameters(image.verity)
    assert by_cryptsetup(path, image.verity)


def test_h123_without_the_option_the_superblock_would_be_believed(
    path: Path, image: ImageSpec
) -> None:
    """A tree of the attacker's parameters: the salt of the manifest would count for nothing."""
    evil = append_tree(str(path), salt=b"evil", uuid=UUID(int=7))
    believing = ["veritysetup", "verify", str(path), str(path), evil.root_hash]
    believing += [f"--hash-offset={evil.hash_offset}", f"--salt={image.verity.salt}"]
    assert subprocess.run(believing, check=False, capture_output=True).returncode == 0
    assert not by_cryptsetup(path, replace(image.verity, root_hash=evil.root_hash))


def test_h124_the_digest_of_the_file_is_no_root_hash(path: Path, image: ImageSpec) -> None:
    data = path.read_bytes()[: image.verity.hash_offset]
    for flat in (image.digest, sha256(data).hexdigest(), "0" * 64):
        verity = replace(image.verity, root_hash=flat)
        assert verdict(path, replace(image, verity=verity)) is Code.VERITY


@pytest.mark.parametrize("size", [0, 1, 32, 256])
def test_h125_salts_that_there_may_be(path: Path, size: int) -> None:
    image = images.unsigned(path)
    verity = append_tree(str(path), salt=bytes(size), uuid=UUID(int=7))
    image = replace(image, verity=verity, digest=Digest(sha256(path.read_bytes()).hexdigest()))
    assert verdict(path, image) is None
    assert by_cryptsetup(path, verity)


@pytest.mark.parametrize("salt", ["00" * 257, "0", "0" * 511, "zz", "AB", "-"])
def test_h125_salts_that_there_may_not_be(path: Path, image: ImageSpec, salt: str) -> None:
    verity = replace(image.verity, salt=salt)
    assert verdict(path, replace(image, verity=verity)) is Code.SCHEMA


def test_h126_nothing_is_ever_repaired(image: ImageSpec) -> None:
    """Nor is damage ignored, and a medium does not get to restart or panic the device."""
    options = parameters(image.verity)
    for word in ("fec", "ignore", "restart", "panic", "check-at-most-once", "root-hash-signature"):
        assert not any(word in option for option in options)
