"""The daemon's side: a process is started and its answer believed."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extsloader.model.errors import SettingsError
from extsloader.model.settings import Paths, Settings
from extsloader.settings import load
from extsloader.settings.load import end_checking, is_switched_off, load_settings, read_settings
from extsloader.settings.start import start_checking


def test_defaults_below_a_root(tmp_path: Path) -> None:
    assert load_settings(None, str(tmp_path)) == Settings(paths=Paths().below(str(tmp_path)))


def test_a_file_and_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "c.toml"
    config.write_text("limits.memory = '1G'\nfilters.fs_types = ['squashfs', 'ext4']")
    monkeypatch.setenv("EXTSLOADER_LIMITS__UPPER", "1M")
    settings = load_settings(str(config))
    assert (settings.limits.memory, settings.limits.upper) == (1 << 30, 1 << 20)
    assert settings.filters.fs_types == ("squashfs", "ext4")


def test_problems_arrive_as_sentences(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("a = 1\nlimits.pids = 'x'")
    with pytest.raises(SettingsError) as caught:
        load_settings(str(config))
    assert len(caught.value.problems) == 2
    assert all(sentence.startswith(f"{config}: ") for sentence in caught.value.problems)


def test_a_checking_process_that_cannot_run_is_a_problem_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(SettingsError, match="No such file"):
        load_settings(None)


def test_a_checking_process_that_dies_is_a_problem_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(SettingsError, match="the checking process ended with 1"):
        load_settings(None)


def test_a_checking_process_that_talks_nonsense_is_a_problem_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nprintf '[7]' >&0\n")
    script.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(script))
    with pytest.raises(SettingsError, match="its answer makes no sense"):
        load_settings(None)


def test_the_process_stays_until_it_is_closed() -> None:
    checking = start_checking(None)
    read_settings(checking)
    assert checking[0].poll() is None
    end_checking(checking)
    assert checking[0].returncode == -signal.SIGKILL


def test_the_daemons_side_does_not_import_pydantic() -> None:
    assert not {name for name in vars(load) if "pydantic" in name.lower()}
    code = "import sys, extsloader.settings.load; sys.exit('pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("cmdline", "off"),
    [
        ("", False),
        ("root=/dev/sda1 quiet extsloader=off", True),
        ("extsloader=off\n", True),
        ("extsloader=on extsloader=off", True),
        ("extsloader=off extsloader=on", False),
        ("extsloader=offline", False),
        ("notextsloader=off", False),
        ('foo="a extsloader=off b"', False),
        ('extsloader="off"', True),
        ("quiet -- extsloader=off", False),
        ('x="unclosed extsloader=off', False),
    ],
)
def test_the_kernel_command_line(cmdline: str, off: bool) -> None:
    assert is_switched_off(cmdline) is off


@given(st.text())
def test_any_kernel_command_line_can_be_read(cmdline: str) -> None:
    assert is_switched_off(cmdline) in {True, False}
