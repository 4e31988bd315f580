"""What veritysetup is told: it checks a tree of ours by nothing but the signed parameters."""

import subprocess
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from extsloader.adapters.mounts.verity import parameters
from extsloader.image.verity import append_tree
from extsloader.model.manifest import Verity

SUPERBLOCK = 4096


def build(path: Path, salt: bytes) -> Verity:
    """An image with a tree of two levels, and nonsense where its superblock would be."""
    content = bytes(range(256)) * 16 * 200
    (path.parent / "content").write_bytes(content)
    options = ("-quiet", "-no-progress", "-noD", "-noF", "-no-duplicates")
    subprocess.run(
        ["mksquashfs", path.parent / "content", path, *options],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    verity = append_tree(str(path), salt=salt, uuid=UUID(int=1))
    with path.open("r+b") as file:
        file.seek(verity.hash_offset)
        file.write(b"\xff" * SUPERBLOCK)
    return verity


def accepts(image: Path, verity: Verity) -> bool:
    argv = ("veritysetup", "verify", str(image), str(image), verity.root_hash)
    done = subprocess.run((*argv, *parameters(verity)), capture_output=True, check=False)
    return done.returncode == 0


@pytest.mark.parametrize("salt", [b"", b"\x5a", b"s" * 32, b"s" * 256])
def test_the_superblock_plays_no_part(tmp_path: Path, salt: bytes) -> None:
    image = tmp_path / "image"
    verity = build(image, salt)
    assert accepts(image, verity)
    wrong = f"{int(verity.root_hash, 16) ^ 1:064x}"
    assert not accepts(image, replace(verity, root_hash=wrong))
    assert not accepts(image, replace(verity, salt="aa"))
    assert not accepts(image, replace(verity, data_blocks=verity.data_blocks - 1))
