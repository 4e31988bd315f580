"""The same verdicts by hand, without a device."""

from dataclasses import replace
from pathlib import Path

import pytest

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
    assert verify_file(str(path), keys) == manifest
    assert verify_file(str(path), keys, wall=1.8e9, machine=images.MACHINE) == manifest
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


def test_what_is_no_file_is_no_image(tmp_path: Path, keys: str) -> None:
    assert code(verify_file(str(tmp_path / "nothing"), keys)) is Code.GONE
    (tmp_path / "link").symlink_to("/etc/passwd")
    assert code(verify_file(str(tmp_path / "link"), keys)) is Code.PATH
