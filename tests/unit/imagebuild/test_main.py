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
