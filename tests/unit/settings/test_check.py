"""Files and environment become settings, or a list of everything that is wrong."""

import os
from pathlib import Path

import pytest

from extsloader.settings.check import check
from extsloader.settings.problem import SettingProblem
from extsloader.settings.schema import SettingsTable


def _accept(
    config: Path | None, environ: dict[str, str] | None = None, root: str = "/"
) -> SettingsTable:
    settings, problems = check(str(config) if config else None, root, environ or {})
    assert (problems, settings is not None) == ([], True)
    assert settings is not None
    return settings


def _refuse(config: Path, environ: dict[str, str] | None = None) -> list[SettingProblem]:
    settings, problems = check(str(config), "/", environ or {})
    assert settings is None
    return problems


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "extsloader.toml.d").mkdir()
    path = tmp_path / "extsloader.toml"
    path.write_text("")
    return path


def _add(config: Path, name: str, text: str) -> None:
    (config.with_name("extsloader.toml.d") / name).write_text(text)


def test_without_a_file_all_is_as_it_comes(tmp_path: Path) -> None:
    settings = _accept(None, root=str(tmp_path))
    assert settings.limits == SettingsTable().limits


def test_root_moves_every_default_path_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "etc/extsloader").mkdir(parents=True)
    (tmp_path / "etc/extsloader/extsloader.toml").write_text("paths.state = '/var/x'")
    paths = _accept(None, root=str(tmp_path)).paths
    assert paths.run == f"{tmp_path}/run/extsloader"
    assert paths.watch[0] == f"{tmp_path}/persist/ext-imga.img"
    assert paths.state == "/var/x"


def test_a_relative_root_is_made_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/usr")
    assert _accept(None, root="demo").paths.run == "/usr/demo/run/extsloader"


def test_later_files_win_key_by_key(config: Path) -> None:
    config.write_text("[limits]\npids = 10\nservice_pids = 20\nmemory = '1G'")
    _add(config, "20-b.toml", "limits.pids = 30")
    _add(config, "10-a.toml", "[limits]\npids = 25\nupper = '8M'")
    _add(config, "30-not.conf", "this is not read")
    limits = _accept(config).limits
    assert (limits.pids, limits.service_pids) == (30, 20)
    assert (limits.memory, limits.upper) == (1 << 30, 8 << 20)


def test_the_environment_wins_over_files(config: Path) -> None:
    config.write_text("limits.memory = '1G'\nudev = true\nfilters.devices = ['/dev/sd*']")
    settings = _accept(
        config,
        {
            "EXTSLOADER_LIMITS__MEMORY": "64M",
            "EXTSLOADER_UDEV": "false",
            "EXTSLOADER_DEVICE_ID": "1234",
            "EXTSLOADER_TIMEOUTS__PROBE": "2.5",
            "EXTSLOADER_LIMITS__PIDS": "99",
            "EXTSLOADER_FILTERS__DEVICES": "/dev/nvme*, /dev/vd*",
            "EXTSLOADER_FILTERS__LABELS": '["a,b"]',
            "EXTSLOADER_FILTERS__REMOVABLE": "yes",
            "EXTSLOADER_SOCKET": "/somewhere",  # extsloaderctl's
            "PATH": "/bin",
            "extsloader_udev": "true",
        },
    )
    assert settings.limits.memory == 64 << 20
    assert settings.limits.pids == 99
    assert settings.udev is False
    assert settings.device_id == "1234"
    assert settings.timeouts.probe == 2.5
    assert settings.filters.devices == ("/dev/nvme*", "/dev/vd*")
    assert settings.filters.labels == ("a,b",)
    assert settings.filters.removable is True


PROBLEMS = """
/extsloader.toml.d/bad.toml: expected TOML in UTF-8, got Invalid value (at end of document) \
(mend the line, see https://toml.io)
/extsloader.toml: runtime: expected 'auto', 'runc', 'crun' or 'containerd', got 'docker' \
(change the value)
/extsloader.toml: udev: expected a valid boolean, got 1 (change the value)
/extsloader.toml: paths.run: expected an absolute path, got 'run' (change the value)
/extsloader.toml: filters.fs_types: expected 'squashfs', 'ext4', 'vfat', 'exfat', 'ntfs', \
'gpt' or 'unknown', got 'zfs' (change the value)
/extsloader.toml: limits.memory: expected a number of bytes, or a text such as '64M' or '2G', \
got '64 MB' (change the value)
/extsloader.toml: limits.pids: expected a valid integer, got True (change the value)
/extsloader.toml: limits.memry: expected a known key, got 'memry' (did you mean limits.memory?)
/extsloader.toml.d/worse.toml: timeouts: expected a table, got 3 (change the value)
/extsloader.toml.d/worse.toml: sockt_group: expected a known key, got 'sockt_group' \
(did you mean socket_group?)
EXTSLOADER_UDEVV: udevv: expected a known key, got 'udevv' (did you mean udev?)
"""


def test_all_problems_come_at_once_each_with_its_place(config: Path) -> None:
    config.write_text(
        "runtime = 'docker'\nudev = 1\n[limits]\nmemry = 3\npids = true\nmemory = '64 MB'\n"
        "[paths]\nrun = 'run'\n[filters]\nfs_types = ['zfs']"
    )
    _add(config, "bad.toml", "limits.pids = ")
    _add(config, "worse.toml", "timeouts = 3\nsockt_group = 'x'")
    sentences = [
        str(p).replace(str(config.parent), "") for p in _refuse(config, {"EXTSLOADER_UDEVV": "1"})
    ]
    assert sorted(sentences) == sorted(PROBLEMS.strip().splitlines())


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ("timeouts.retry_base = 100", "timeouts", "retry_base not above retry_cap"),
        ("filters.min_size = '17T'", "filters", "min_size not above max_size"),
        ("timeouts.probe = nan", "timeouts.probe", "a finite number"),
        ("timeouts.probe = 0", "timeouts.probe", "greater than 0"),
        ("timeouts.probe = 2026-01-01", "timeouts.probe", "a valid number"),
        ("cgroup = '../x'", "cgroup", "text like"),
        ("paths.run = '/" + "r" * 100 + "'", "paths.run", "at most 91 characters"),
        ("paths.watch = '/x'", "paths.watch", "a list"),
        ("filters.files = ['']", "filters.files", "text like"),
        ("filters.files = ['../x.img']", "filters.files", "text like"),
        ("filters.fs_types = []", "filters.fs_types", "at least one"),
        ("filters.labels = ['']", "filters.labels", "at least 1 character"),
    ],
)
def test_values_out_of_bounds(config: Path, text: str, key: str, expected: str) -> None:
    config.write_text(text)
    (problem,) = _refuse(config)
    assert (problem.file, problem.key) == (str(config), key)
    assert expected in problem.expected


def test_a_key_in_the_wrong_table_is_pointed_to_the_right_one(config: Path) -> None:
    config.write_text("watch = ['/data']")
    (problem,) = _refuse(config)
    assert problem.next_step == "did you mean paths.watch?"


def test_a_key_like_no_other_gets_the_list(config: Path) -> None:
    config.write_text("zzzzzz = 1")
    (problem,) = _refuse(config)
    assert "docs/operations.md" in problem.next_step


def test_a_file_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    (problem,) = _refuse(tmp_path / "none.toml")
    assert (problem.expected, problem.got) == (
        "a file that can be read",
        "No such file or directory",
    )
    assert "--config" in problem.next_step


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"a = 1\na = 2", b"[limits\n", b"#" * (1 << 20) + b"\n"]
)
def test_a_file_that_is_no_toml(config: Path, content: bytes) -> None:
    config.write_bytes(content)
    (problem,) = _refuse(config)
    assert problem.expected == "TOML in UTF-8"


@pytest.mark.parametrize(
    ("mode", "gid", "is_safe"),
    [(0o666, 0, False), (0o662, 1000, False), (0o660, 1000, False), (0o660, 0, True)],
)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_that_others_may_write_is_not_obeyed(
    config: Path, mode: int, gid: int, is_safe: bool
) -> None:
    os.chown(config, -1, gid)
    config.chmod(mode)
    if is_safe:
        _accept(config)
        return
    (problem,) = _refuse(config)
    assert problem.got == f"mode {mode:04o}, owner 0, group {gid}"
    assert problem.next_step.endswith(f"chmod go-w {config}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_somebody_else_is_not_obeyed(config: Path) -> None:
    os.chown(config, 1000, -1)
    (problem,) = _refuse(config)
    assert "owner 1000" in problem.got


def test_what_is_no_file_is_not_waited_for(config: Path) -> None:
    os.mkfifo(config.with_name("extsloader.toml.d") / "fifo.toml")
    (config.with_name("extsloader.toml.d") / "folder.toml").mkdir()
    assert [problem.got for problem in _refuse(config)] == ["no regular file"] * 2
