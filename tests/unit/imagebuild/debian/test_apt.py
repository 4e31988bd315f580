from pathlib import Path

import pytest

from extsloader.imagebuild.debian.apt import open_apt
from extsloader.imagebuild.tools import ARCHITECTURE
from extsloader.model.errors import MachineError


def install(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = directory / "bin/apt-get"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")


def test_the_machines_own_apt_is_used_as_it_is(tmp_path: Path) -> None:
    assert open_apt(ARCHITECTURE, tmp_path).environment == ()


def test_another_architecture_has_a_state_of_its_own_that_is_fetched_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, f'cat "$APT_CONFIG" >> {tmp_path}/asked')

    apt = open_apt("riscv64", tmp_path / "cache")
    assert open_apt("riscv64", tmp_path / "cache") == apt

    asked = (tmp_path / "asked").read_text()
    assert asked.count('APT::Architecture "riscv64";') == 1
    assert f'Dir::State::lists "{tmp_path}/cache/apt-riscv64/lists";' in asked
    apt.run(["apt-get"], "ask again")
    assert (tmp_path / "asked").read_text() == asked * 2


def test_lists_that_could_not_be_fetched_are_fetched_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "echo 'E: no network' >&2; exit 100")
    with pytest.raises(MachineError, match=r"get the lists for riscv64: .*no network"):
        open_apt("riscv64", tmp_path / "cache")

    install(tmp_path, monkeypatch, f"touch {tmp_path}/done")
    open_apt("riscv64", tmp_path / "cache")
    assert (tmp_path / "done").exists()
