"""The same verdicts by hand, without a device."""

from dataclasses import replace
from pathlib import Path

import pytest

from extsloader.image.schema import encode_manifest
from extsloader.model.manifest import StoredImage
from extsloader.model.reasons import Code, Problem
from extsloader.verify.offline import verify_file
from tests.fakes import images
from tests.fakes.images import names


@pytest.fixture
def keys(tmp_path: Path) -> str:
    return images.key_directory(tmp_path / "keys", 1)


def code(found: object) -> Code:
    assert isinstance(found, Problem)
    return found.code


def test_a_good_image_gives_its_manifest_and_is_left_alone(tmp_path: Path, keys: str) -> None:
    path = tmp_path / "image"
    manifest = images.signed(path)
    for found in (
        verify_file(str(path), keys),
        verify_file(str(path), keys, wall=1.8e9, machine=images.MACHINE),
    ):
        assert isinstance(found, StoredImage)
        assert (found.manifest, len(found.key_ids)) == (manifest, 1)
    assert names(tmp_path) == ["image", "keys"]


def test_what_a_device_would_say_is_said(tmp_path: Path, keys: str) -> None:
    path = tmp_path / "image"
    images.signed(path, expires="2026-02-01T00:00:00Z")
    other = replace(images.MACHINE, arch="arm64")
    assert code(verify_file(str(path), keys, wall=1.8e9)) is Code.EXPIRED
    assert code(verify_file(str(path), keys, machine=other)) is Code.INCOMPATIBLE
    with path.open("r+b") as file:
        file.seek(5000)
        file.write(b"spoiled")
    assert code(verify_file(str(path), keys)) is Code.DIGEST


def test_an_image_without_signature_is_good_where_it_is_pinned(tmp_path: Path) -> None:
    path = tmp_path / "image"
    wanted = images.manifest(images.unsigned(path))
    keys = images.key_directory(tmp_path / "keys", 1)
    assert code(verify_file(str(path), keys)) is Code.ENVELOPE
    Path(keys, "pinned.json").write_bytes(encode_manifest(wanted))
    found = verify_file(str(path), keys)
    assert isinstance(found, StoredImage)
    assert (found.manifest, found.key_ids) == (wanted, ())
    with path.open("r+b") as file:
        file.seek(5000)
        file.write(b"spoiled")
    assert code(verify_file(str(path), keys)) is Code.DIGEST


def test_what_is_no_file_is_no_image(tmp_path: Path, keys: str) -> None:
    assert code(verify_file(str(tmp_path / "nothing"), keys)) is Code.GONE
    (tmp_path / "link").symlink_to("/etc/passwd")
    assert code(verify_file(str(tmp_path / "link"), keys)) is Code.PATH
