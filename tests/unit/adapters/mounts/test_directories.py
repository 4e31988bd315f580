from pathlib import Path

import pytest

from extsloader.adapters.mounts.directories import make, remove_empty


def test_making_twice_is_making_once(tmp_path: Path) -> None:
    wanted = tmp_path / "a/b/c"
    assert make(str(wanted), 0o700)
    assert not make(str(wanted), 0o700)
    assert wanted.stat().st_mode & 0o777 == 0o700


def test_nothing_is_made_behind_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to("target")
    for path in ("link", "link/x", "link/x/y"):
        with pytest.raises(OSError, match="symbolic links"):
            make(str(tmp_path / path))
    assert list((tmp_path / "target").iterdir()) == []


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        make(str(tmp_path / "file"))


def test_only_empty_directories_below_our_own_are_removed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    full, empty, other = run / "full", run / "empty", tmp_path / "other"
    for directory in (full / "data", empty, other):
        directory.mkdir(parents=True)
    for path in (full, empty, other, run, run / "missing"):
        remove_empty(str(run), str(path))
    assert (full.exists(), empty.exists(), other.exists(), run.exists()) == (
        True,
        False,
        True,
        True,
    )


def test_nothing_is_removed_behind_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "other/empty").mkdir(parents=True)
    (tmp_path / "run/link").symlink_to(tmp_path / "other")
    remove_empty(str(tmp_path / "run"), str(tmp_path / "run/link/empty"))
    assert (tmp_path / "other/empty").exists()
