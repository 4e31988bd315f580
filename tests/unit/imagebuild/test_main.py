import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from extsloader.imagebuild.main import main

HEAVY = ("pydantic", "cryptography", "securesystemslib", "yaml")


def test_help_does_not_load_the_heavy_libraries() -> None:
    code = f"""
import sys
from extsloader.imagebuild.main import make_parser
make_parser().format_help()
sys.exit(not set({HEAVY}).isdisjoint(sys.modules))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_wrong_usage_is_exit_code_2() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["build", "pkgs.yml", "--out", "out"])
    assert caught.value.code == 2


def test_keys_are_made_once_and_the_private_one_is_private(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keygen", str(tmp_path / "keys"), "--name", "ci"]) == 0
    private = tmp_path / "keys/ci.key"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    before = private.read_bytes()
    capsys.readouterr()

    assert main(["keygen", str(tmp_path / "keys"), "--name", "ci"]) == 1
    told = capsys.readouterr().err
    assert private.read_bytes() == before
    assert told.startswith("mkext: E_KEYS: cannot write ")
    assert "mkext: hint: choose another --name" in told


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["lock", "none"], "mkext: cannot read images/pkg/none/recipe.yaml: no such file"),
        (["sign", "x.img", "--manifest", "m", "--key", "none.key"], "mkext: cannot use none.key"),
        (["verity", "/dev/null"], "mkext: E_FS_TYPE: cannot use /dev/null: it is no squashfs"),
    ],
)
def test_failures_are_told_in_a_line_without_traceback(
    argv: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 1
    assert capsys.readouterr().err.startswith(told)


def test_check_says_of_every_file_whether_it_is_good(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = tmp_path / "good.yml", tmp_path / "bad.yml"
    good.write_text("init: [runc:1]\n")
    bad.write_text("init: [1]\nfoo: 2\n")

    assert main(["check", str(good)]) == 0
    assert main(["check", str(bad), str(good), str(tmp_path / "none.yml")]) == 1
    told = capsys.readouterr()
    assert told.out == f"{good}: ok\n" * 2
    assert [line.split(": ")[:2] for line in told.err.splitlines()[:2]] == [
        ["mkext", f"{bad}:1"],
        ["mkext", f"{bad}:2"],
    ]
    assert f"cannot read {tmp_path}/none.yml" in told.err


def test_oci_prints_one_line_of_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    definition, config = tmp_path / "a.yml", tmp_path / "config.json"
    definition.write_text("services: [{name: a, image: A_TAG}]\n")
    config.write_text('{"Entrypoint": ["/a"], "Cmd": ["b"]}')

    assert main(["oci", "--image-config", str(config), str(definition)]) == 0

    (line,) = capsys.readouterr().out.splitlines()
    (found,) = json.loads(line)
    assert sorted(found) == list(found) == ["config", "name", "runtime"]
    assert found["config"]["process"]["args"] == ["/a", "b"]


def test_a_pkgs_image_refuses_what_check_accepts_and_it_cannot_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    definition = tmp_path / "a.yml"
    definition.write_text("kernel: {image: k}\nservices: [{name: a, image: a}]\n")

    assert main(["check", str(definition)]) == 0
    assert main(["manifest", "a.img", str(definition), "-o", str(tmp_path / "a.json")]) == 1
    assert f"{definition}: kernel: not supported in a pkgs image" in capsys.readouterr().err
