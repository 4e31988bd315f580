"""`extsloaderctl plan`: the order of starts, without a daemon and without a trace."""

import json
from pathlib import Path

import pytest

from extsloader.ctl.main import main
from tests.fakes.images import signed


def test_the_plan_of_an_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "a.img"
    signed(image)
    before = (image.stat().st_mtime_ns, list(tmp_path.iterdir()))
    assert main(["plan", str(image)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "not verified: pkgs 1.0, 2 services, 2 steps"
    assert lines[1] == "critical path: a -> b, waits 0 s at most"
    assert lines[-1].split() == ["2", "b", "no", "a", "0", "s", "-"]
    assert (image.stat().st_mtime_ns, list(tmp_path.iterdir())) == before


def test_the_plan_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "a.img"
    signed(image)
    assert main(["plan", "--json", str(image)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["critical_path"] == ["a", "b"]
    assert found["services"][1] == {
        "name": "b",
        "step": 2,
        "behind": "a",
        "seconds": 0.0,
        "deferred": [],
    }


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_what_is_no_image_has_no_plan(
    option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "noise").write_bytes(b"noise" * 5000)
    assert main(["plan", str(tmp_path / "noise"), *option]) == 1
    assert "E_" in capsys.readouterr().out
