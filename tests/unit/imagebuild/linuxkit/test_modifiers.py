from pathlib import Path

import pytest

from extsloader.imagebuild.linuxkit.modifiers import find_modifiers, modify
from extsloader.model.errors import MachineError, SettingsError

MIKEFARAH = "yq (https://github.com/mikefarah/yq/) version v4.40.5"


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that alone is in PATH, beside the shell's."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    return directory


def put_yq(path: Path, version: str) -> None:
    """A yq that says its version, and otherwise its arguments and its input."""
    program = f'[ "$1" = --version ] && echo "{version}" && exit\necho "# $@"\n/bin/cat\n'
    (path / "yq").write_text(f"#!/bin/sh\n{program}")
    (path / "yq").chmod(0o755)


def test_a_modifier_is_given_to_yq_with_the_text(path: Path) -> None:
    put_yq(path, MIKEFARAH)

    assert modify("a: 1\n", Path("hv/k.yq")) == "# --from-file hv/k.yq\na: 1\n"


@pytest.mark.parametrize("version", ["yq 0.0.0", "yq 3.1.0", MIKEFARAH.replace("v4", "v3")])
def test_another_yq_is_refused(path: Path, version: str) -> None:
    put_yq(path, version)

    with pytest.raises(MachineError) as caught:
        modify("a: 1\n", Path("hv/k.yq"))

    message = f"cannot apply hv/k.yq: expected mikefarah's yq, version 4, got {version}"
    assert caught.value.problem.message == message
    assert "not Debian's package" in caught.value.problem.hint


def test_a_missing_yq_does_not_ask_for_debians() -> None:
    with pytest.raises(MachineError) as caught:
        modify("a: 1\n", Path("hv/k.yq"))

    assert "yq is not installed" in str(caught.value)
    assert "not Debian's package" in caught.value.problem.hint


def test_modifiers_are_those_of_the_hypervisor_and_the_platform(tmp_path: Path) -> None:
    wanted = [tmp_path / "hv/k.yq", tmp_path / "platform/jp7/jp7.yq"]
    for file in [*wanted, tmp_path / "hv/mini.yq"]:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()

    assert find_modifiers(tmp_path, "k", "jp7") == wanted
    assert find_modifiers(tmp_path, "kvm", "generic") == []
    with pytest.raises(SettingsError, match="expected a directory"):
        find_modifiers(tmp_path / "none", "k", "jp7")
