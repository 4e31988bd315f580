"""The hash tree against veritysetup, byte for byte, and against signers who got it wrong."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extsloader.image.verity import (
    BLOCK,
    append_tree,
    build_tree,
    encode_superblock,
    image_size,
    read_superblock,
    round_up,
    tree_blocks,
    verify_tree,
)
from extsloader.model.errors import ImageRefusedError
from extsloader.model.manifest import Verity
from extsloader.model.reasons import Code
from tests.fakes import images

SALT = images.SALT


def check(path: Path, verity: Verity) -> None:
    with path.open("rb") as file:
        verify_tree(file.fileno(), verity)


def refusal(path: Path, verity: Verity) -> str:
    with pytest.raises(ImageRefusedError) as caught:
        check(path, verity)
    assert caught.value.problem.code is Code.VERITY
    return caught.value.problem.message


def veritysetup(path: Path, offset: int, salt: bytes, uuid: UUID) -> str:
    argv = ["veritysetup", "format", f"--hash-offset={offset}", f"--data-blocks={offset // BLOCK}"]
    argv += [f"--salt={salt.hex() or '-'}", f"--uuid={uuid}", str(path), str(path)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    return done.stdout.split("Root hash:")[1].split()[0]


@pytest.mark.parametrize("salt", [b"", b"\x01", SALT, bytes(256)], ids=len)
@pytest.mark.parametrize("size", [100, 300_000, 129 * 4096, 3_000_000])
def test_bytes_and_root_hash_are_those_of_veritysetup(
    tmp_path: Path, size: int, salt: bytes
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for path in (ours, theirs):
        path.write_bytes(images.squashfs(size))
    uuid = UUID("6f1a9f2c-2b7e-4a53-9d3f-0c4e8d5b7a61")
    verity = append_tree(str(ours), salt=salt, uuid=uuid)
    os.truncate(theirs, verity.hash_offset)
    assert verity.root_hash == veritysetup(theirs, verity.hash_offset, salt, uuid)
    assert ours.read_bytes() == theirs.read_bytes()
    assert ours.stat().st_size == image_size(verity.data_blocks)
    check(ours, verity)


@pytest.mark.parametrize("blocks", [1, 2, 127, 128, 129, 128 * 128, 128 * 128 + 1])
def test_number_of_levels_at_their_limits(tmp_path: Path, blocks: int) -> None:
    path = tmp_path / "data"
    path.touch()
    os.truncate(path, blocks * BLOCK)
    root = veritysetup(path, blocks * BLOCK, SALT, images.UUID_)
    assert path.stat().st_size == image_size(blocks)
    with path.open("rb") as file:
        levels, own = build_tree(file.fileno(), blocks, SALT)
        file.seek((blocks + 1) * BLOCK)
        assert b"".join(levels) == file.read()
    assert own.hex() == root
    assert sum(map(len, levels)) == tree_blocks(blocks) * BLOCK


def test_appending_twice_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "image"
    images.unsigned(path)
    once = path.read_bytes()
    append_tree(str(path), salt=SALT, uuid=images.UUID_)
    assert path.read_bytes() == once


def test_what_is_no_squashfs_gets_no_tree(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(bytes(8192))
    with pytest.raises(ImageRefusedError, match="no squashfs"):
        append_tree(str(path), salt=SALT, uuid=images.UUID_)
    path.write_bytes(images.squashfs()[:5000])
    with pytest.raises(ImageRefusedError, match="cut short"):
        append_tree(str(path), salt=SALT, uuid=images.UUID_)


def test_one_changed_bit_anywhere_is_found(tmp_path: Path) -> None:
    path = tmp_path / "image"
    verity = images.unsigned(path).verity
    good = path.read_bytes()
    tree = verity.hash_offset + BLOCK
    for offset in (0, 200_000, verity.hash_offset - 1, tree, tree + BLOCK - 1):
        bad = bytearray(good)
        bad[offset] ^= 1
        path.write_bytes(bad)
        assert "hash" in refusal(path, verity)


def test_signed_parameters_that_differ_are_named(tmp_path: Path) -> None:
    path = tmp_path / "image"
    verity = images.unsigned(path).verity
    assert "salt 00 signed" in refusal(path, replace(verity, salt="00"))
    assert "data blocks 3 signed" in refusal(path, replace(verity, data_blocks=3))
    assert "root hash" in refusal(path, replace(verity, root_hash="0" * 64))
    assert "no superblock" in refusal(path, replace(verity, hash_offset=BLOCK))


def test_fewer_data_than_promised_are_a_size_problem(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(BLOCK * 3))
    with path.open("rb") as file, pytest.raises(ImageRefusedError) as caught:
        build_tree(file.fileno(), 4, b"")
    assert caught.value.problem.code is Code.SIZE


@given(blocks=st.integers(1, 1 << 52), salt=st.binary(max_size=256), uuid=st.uuids())
def test_a_superblock_that_was_written_is_read_again(blocks: int, salt: bytes, uuid: UUID) -> None:
    raw = encode_superblock(uuid=uuid, data_blocks=blocks, salt=salt)
    found = read_superblock(lambda offset, length: raw[offset : offset + length], 0)
    assert found is not None
    assert (found.data_blocks, found.salt, found.uuid) == (blocks, salt, uuid)
    assert (found.algorithm, found.data_block_size) == ("sha256", BLOCK)


@given(st.binary(max_size=600))
def test_garbage_is_no_superblock(raw: bytes) -> None:
    assert read_superblock(lambda offset, length: raw[offset : offset + length], 0) is None


@given(st.integers(0, 1 << 60))
def test_rounding_up_gives_the_next_boundary(size: int) -> None:
    assert round_up(size) % BLOCK == 0
    assert 0 <= round_up(size) - size < BLOCK


def test_a_read_that_comes_in_pieces_is_put_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "image"
    verity = images.unsigned(path).verity
    whole = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: whole(fd, min(size, 5000), at))
    check(path, verity)
