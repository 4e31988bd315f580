"""Looking at an image file without a daemon."""

import json
from hashlib import sha256
from pathlib import Path

import pytest

from extsloader.ctl.main import main
from extsloader.image.trailer import SIDECAR_SUFFIX
from tests.fakes.images import envelope, key_directory, signed


def test_a_good_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, keys = tmp_path / "a.img", key_directory(tmp_path / "keys", 1)
    wanted = signed(image)
    assert main(["verify", str(image), "--keys", keys]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"verified: {image}"
    assert f"digest    {wanted.image.digest}" in lines
    assert "b        no         device's  a         containers/services/b" in lines


def test_only_what_was_verified_is_told_as_a_fact(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, keys = tmp_path / "a.img", key_directory(tmp_path / "keys", 1, epoch=3)
    signed(image, 1, 2)
    assert main(["verify", str(image), "--keys", keys]) == 0
    verified = capsys.readouterr().out.splitlines()[1]
    assert verified.startswith("signed by ")
    assert verified.endswith(" (keys that count: 1, key epoch 3)")
    assert main(["inspect", str(image)]) == 0
    claimed = capsys.readouterr().out.splitlines()[1]
    assert claimed.startswith("claims to be signed by ")
    assert claimed.count(",") == 1
    assert main(["verify", str(image), "--keys", keys, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["key_epoch"] == 3
    assert main(["inspect", str(image), "--json"]) == 0
    assert "key_epoch" not in json.loads(capsys.readouterr().out)


def test_an_image_that_was_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, keys = tmp_path / "a.img", key_directory(tmp_path / "keys", 1)
    signed(image)
    with image.open("r+b") as file:
        file.seek(1000)
        file.write(b"spoiled")
    assert main(["verify", str(image), "--keys", keys]) == 1
    assert "[E_DIGEST]" in capsys.readouterr().out


def test_an_image_of_a_stranger_can_be_inspected_but_not_verified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, keys = tmp_path / "a.img", key_directory(tmp_path / "keys", 1)
    signed(image, 2)
    assert main(["inspect", str(image), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["verdict"], found["manifest"]["name"]) == ("not verified", "pkgs")
    assert main(["verify", str(image), "--keys", keys, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["verdict"], found["problem"]["code"]) == ("refused", "E_SIGNATURE")


def test_the_envelope_may_lie_beside_the_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "a.img"
    wanted = signed(image)
    with image.open("r+b") as file:
        file.truncate(wanted.image.size)
    assert main(["inspect", str(image)]) == 1
    assert "No such file" in capsys.readouterr().out
    Path(f"{image}{SIDECAR_SUFFIX}").write_bytes(envelope(wanted))
    assert main(["inspect", str(image)]) == 0


@pytest.mark.parametrize("verb", ["verify", "inspect"])
@pytest.mark.parametrize("name", ["nothing", "folder", "empty", "noise"])
def test_what_is_no_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, name: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "noise").write_bytes(bytes(range(256)) * 100)
    assert main([verb, str(tmp_path / name)]) == 1
    assert capsys.readouterr().out.startswith("refused: ")


def test_the_register_of_a_device_that_runs_an_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, keys = tmp_path / "a.img", key_directory(tmp_path / "keys", 1)
    digest = signed(image).image.digest
    event = sha256(f"extsloader:image-verified:{digest}".encode()).digest()
    value = sha256(bytes(32) + event).hexdigest()
    assert main(["pcr", "--image", str(image), "--keys", keys]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "pcr       12"
    assert lines[-1] == f"value     {value}"
    assert main(["pcr", "--image", str(image), "--keys", keys, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "pcr": 12,
        "bank": "sha256",
        "event": f"extsloader:image-verified:{digest}",
        "digest": event.hex(),
        "value": value,
    }


def test_nothing_is_foretold_of_an_image_that_a_device_would_refuse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, keys = tmp_path / "a.img", key_directory(tmp_path / "keys", 1)
    signed(image, 2)
    assert main(["pcr", "--image", str(image), "--keys", keys]) == 1
    assert capsys.readouterr().out.startswith("refused: ")
