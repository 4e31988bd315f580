"""What a signer may want to look at before a device does."""

import json
import subprocess
from pathlib import Path

import pytest

from extsloader.ctl.listing import find_warnings
from extsloader.ctl.main import main
from extsloader.image.schema import encode_manifest
from extsloader.image.signing import sign
from extsloader.image.trailer import append_trailer
from extsloader.imagebuild.image import add_verity, measure_image
from tests.fakes import images

DEFINITION = """\
rootfs d 755 0 0
rootfs/su f 6755 0 0 true
rootfs/write f 2755 0 0 true
rootfs/plain f 755 0 0 true
rootfs/null c 666 0 0 1 3
rootfs/disk b 660 0 0 8 0
"""
EXPECTED = [
    "device node rootfs/disk",
    "device node rootfs/null",
    "setuid and setgid file rootfs/su",
    "setgid file rootfs/write",
]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Pseudo files make device nodes without root (mksquashfs(1), "-p")."""
    (tmp_path / "root").mkdir()
    (tmp_path / "definition").write_text(DEFINITION)
    out = tmp_path / "image"
    argv = ["mksquashfs", str(tmp_path / "root"), str(out), "-quiet", "-no-progress"]
    argv += ["-pf", str(tmp_path / "definition")]
    subprocess.run(argv, check=True, capture_output=True)
    add_verity(out)
    manifest = encode_manifest(images.manifest(measure_image(out)))
    append_trailer(str(out), sign(manifest, [images.private_key()]))
    return out


def test_device_nodes_and_setuid_files_are_named(image: Path) -> None:
    assert find_warnings(str(image)) == EXPECTED


def test_they_are_told_of_a_verified_image_and_change_no_verdict(
    image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = images.key_directory(image.parent / "keys", 1)
    assert main(["verify", str(image), "--keys", keys]) == 0
    assert "warning: device node rootfs/null" in capsys.readouterr().out.splitlines()
    assert main(["verify", str(image), "--keys", keys, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["warnings"] == EXPECTED
    assert main(["inspect", str(image), "--json"]) == 0
    assert "warnings" not in json.loads(capsys.readouterr().out)


def test_without_the_tool_that_is_said(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    (warning,) = find_warnings(str(image))
    assert warning.startswith("cannot look for device nodes and setuid files: ")
