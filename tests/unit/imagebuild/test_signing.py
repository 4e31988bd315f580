"""The ceremony of docs/security.md: two people sign, keys are rotated, one is stolen."""

import json
from pathlib import Path

import pytest

from extsloader.ctl.main import main as ctl
from extsloader.image.schema import encode_manifest
from extsloader.imagebuild.main import main as mkext
from tests.fakes import images


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image without a trailer, and its manifest beside it."""
    path = tmp_path / "rootfs-pkgs.img"
    wanted = images.manifest(images.unsigned(path))
    (tmp_path / "manifest.json").write_bytes(encode_manifest(wanted))
    return path


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """The keys of a device: Ada's and Ben's, both have to sign."""
    keys = tmp_path / "keys"
    for name in ("ada", "ben", "eve"):
        assert mkext(["keygen", str(tmp_path / name), "--name", name]) == 0
    keys.mkdir()
    for name in ("ada", "ben"):
        trust(keys, name)
    write_policy(keys, threshold=2)
    return keys


def trust(keys: Path, name: str) -> None:
    (keys / f"{name}.pem").write_bytes((keys.parent / name / f"{name}.pem").read_bytes())


def write_policy(keys: Path, **policy: object) -> None:
    (keys / "policy.json").write_text(json.dumps(policy))


def sign(image: Path, name: str, *options: str) -> int:
    key = image.parent / name / f"{name}.key"
    return mkext(["sign", str(image), "--key", str(key), *options])


def verify(image: Path, keys: Path) -> int:
    return ctl(["verify", str(image), "--keys", str(keys)])


def test_each_signer_adds_a_signature_to_the_image_that_goes_round(
    image: Path, device: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sign(image, "ada") == 1
    assert "it carries no manifest" in capsys.readouterr().err
    assert sign(image, "ada", "--manifest", str(image.parent / "manifest.json")) == 0
    assert verify(image, device) == 1
    assert "E_THRESHOLD" in capsys.readouterr().out
    assert sign(image, "ben") == 0
    assert sign(image, "ben") == 0  # twice is once
    assert verify(image, device) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "signed by" in line]
    assert line.count(",") == 1


def test_nobody_signs_an_image_that_was_changed_on_the_way(
    image: Path, device: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert device.exists()
    assert sign(image, "ada", "--manifest", str(image.parent / "manifest.json")) == 0
    with image.open("r+b") as file:
        file.seek(5000)
        file.write(b"spoiled")
    assert sign(image, "ben") == 1
    assert "the manifest describes another image" in capsys.readouterr().err


def test_a_stolen_key_is_revoked_and_replaced(
    image: Path, device: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sign(image, "ada", "--manifest", str(image.parent / "manifest.json"))
    sign(image, "ben")
    trust(device, "eve")
    write_policy(device, threshold=2, epoch=1, revoked=["ben.pem"])
    assert verify(image, device) == 1
    assert "a revoked key signed" in capsys.readouterr().out
    assert sign(image, "eve") == 0
    assert verify(image, device) == 0
