"""Pid file, watchdog, overrides and state file, as Pillar's own agents and scripts expect them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from extsloader.adapters.agent_files import AgentFiles
from extsloader.model.errors import MachineError
from extsloader.model.reasons import Code


@pytest.fixture
def files(tmp_path: Path) -> AgentFiles:
    return AgentFiles(str(tmp_path))


def test_the_pid_file_has_no_line_end(files: AgentFiles, tmp_path: Path) -> None:
    files.claim()
    pid = tmp_path / "extsloader.pid"
    assert pid.read_bytes() == str(os.getpid()).encode()
    assert pid.stat().st_mode & 0o777 == 0o644
    files.claim()  # our own is no other
    files.release()
    assert list(tmp_path.iterdir()) == []


def test_a_living_agent_of_the_name_is_not_joined(files: AgentFiles, tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "print(1, flush=True); input()", "extsloader"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline()
        (tmp_path / "extsloader.pid").write_text(str(other.pid))
        with pytest.raises(MachineError) as refused:
            files.claim()
        assert refused.value.problem.code is Code.BUSY
        files.release()
        assert (tmp_path / "extsloader.pid").exists()
    files.claim()


def test_a_pid_that_is_used_again_by_a_stranger_is_no_agent(
    files: AgentFiles, tmp_path: Path
) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (tmp_path / "extsloader.pid").write_text(str(stranger.pid))
        files.claim()
        stranger.kill()


@pytest.mark.parametrize("text", ["", "x", "-1", "99999999999999999999"])
def test_a_pid_file_that_says_nothing_is_replaced(
    files: AgentFiles, tmp_path: Path, text: str
) -> None:
    (tmp_path / "extsloader.pid").write_text(text)
    files.claim()
    assert (tmp_path / "extsloader.pid").read_text() == str(os.getpid())


def test_the_watchdog_is_told_to_look_and_in_the_end_not_to(
    files: AgentFiles, tmp_path: Path
) -> None:
    files.register()
    touched = tmp_path / "extsloader.touch"
    assert touched.read_bytes() == b""
    assert (tmp_path / "watchdog/file/extsloader.touch").exists()
    assert (tmp_path / "watchdog/pid/extsloader.pid").exists()
    os.utime(touched, (1, 1))
    files.touch()
    assert touched.stat().st_mtime > 1
    files.release()
    assert not touched.exists()
    assert list((tmp_path / "watchdog/file").iterdir()) == []
    assert list((tmp_path / "watchdog/pid").iterdir()) == []


def test_who_has_not_registered_takes_nobody_s_marker_away(
    files: AgentFiles, tmp_path: Path
) -> None:
    AgentFiles(str(tmp_path)).register()
    files.release()
    assert (tmp_path / "watchdog/file/extsloader.touch").exists()


@pytest.mark.parametrize(
    ("content", "slot"), [("IMGA\n", "IMGA"), ("RAM\n", "RAM"), ("", ""), (None, "")]
)
def test_the_slot(files: AgentFiles, tmp_path: Path, content: str | None, slot: str) -> None:
    if content is not None:
        (tmp_path / "eve.id").write_text(content)
    assert files.read_slot() == slot


def test_override_files_of_every_kind(files: AgentFiles, tmp_path: Path) -> None:
    assert files.read_overrides() == {}
    directory = tmp_path / "eve-service-overrides"
    directory.mkdir()
    (directory / "vector").write_text("disabled\n")
    (directory / "kube").write_text("x" * 1_000_000)
    (directory / "link").symlink_to("/etc/passwd")
    (directory / "folder").mkdir()
    os.mkfifo(directory / "pipe")
    found = files.read_overrides()
    assert found["vector"] == "disabled"
    assert len(found["kube"]) == 32
    assert not {"link", "folder"} & found.keys()
    for number in range(200):
        (directory / f"s{number:03}").write_text("enabled")
    assert len(files.read_overrides()) <= 64


def test_the_state_file_is_replaced_whole(files: AgentFiles, tmp_path: Path) -> None:
    files.write_state(b'{"state":"starting"}')
    files.write_state(b"{}")
    assert (tmp_path / "extsloader-state.json").read_bytes() == b"{}"
    assert [path.name for path in tmp_path.iterdir()] == ["extsloader-state.json"]


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    files = AgentFiles(str(tmp_path / "missing"))
    for work in (files.claim, files.touch, lambda: files.write_state(b"{}")):
        with pytest.raises(MachineError, match="no such file"):
            work()
