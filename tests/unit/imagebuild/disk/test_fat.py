"""File systems are made with the real tools and read by others."""

import shutil
import subprocess
from pathlib import Path

import pytest

from extsloader.imagebuild.disk.fat import Fat, check_names, make_fat
from extsloader.model.errors import MachineError, SettingsError

FAT = Fat(label="EVE", serial="e7e00054", size=1 << 20)
NAMES = [f"keys/{letter}.pem" for letter in "qwertyuiopasdfghjkl"]


def make_files(folder: Path, names: list[str]) -> dict[str, Path]:
    folder.mkdir()
    for number, name in enumerate(names):
        (folder / str(number)).write_text(name)
    return {name: folder / str(number) for number, name in enumerate(names)}


def list_names(image: Path, directory: str) -> list[str]:
    listed = subprocess.run(
        ["mdir", "-b", "-i", image, f"::{directory}"], check=True, capture_output=True, text=True
    )
    return listed.stdout.splitlines()


def test_files_come_in_one_order_however_the_host_lists_them(tmp_path: Path) -> None:
    for name, names in (("one", NAMES), ("other", NAMES[::-1])):
        make_fat(tmp_path / f"{name}.img", FAT, make_files(tmp_path / name, names))

    assert list_names(tmp_path / "one.img", "keys") == [f"::/{name}" for name in sorted(NAMES)]
    assert (tmp_path / "one.img").read_bytes() == (tmp_path / "other.img").read_bytes()


def test_label_and_serial_number_are_those_asked_for(tmp_path: Path) -> None:
    make_fat(tmp_path / "x.img", FAT, {})

    boot = (tmp_path / "x.img").read_bytes()[:512]
    assert (boot[39:43][::-1].hex(), boot[43:54]) == ("e7e00054", b"EVE        ")


def test_names_that_fat_cannot_hold_are_refused_all_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        check_names(["server", "Server", "keys/a:b", "end.", "fine name.txt"], "EVE")

    assert caught.value.problems == (
        "cannot put into EVE the file 'Server': it differs from another only in case",
        "cannot put into EVE the file 'server': it differs from another only in case",
        "cannot put into EVE the file 'end.': FAT has no such names",
        "cannot put into EVE the file 'keys/a:b': FAT has no such names",
    )


def test_what_does_not_fit_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(2 << 20))

    with pytest.raises(MachineError, match="cannot fill the file system EVE") as caught:
        make_fat(tmp_path / "x.img", FAT, {"large": tmp_path / "large"})

    assert caught.value.problem.hint == "it has 1 MiB: make the partition larger"
    assert not (tmp_path / "x.img").exists()


def test_a_missing_tool_is_named_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tool in ("env", "mkfs.vfat"):
        found = shutil.which(tool, path="/usr/sbin:/usr/bin:/sbin:/bin")
        assert found
        (tmp_path / tool).symlink_to(found)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(MachineError, match="mcopy is not installed") as caught:
        make_fat(tmp_path / "x.img", FAT, {"file": tmp_path / "file"})

    assert caught.value.problem.hint == "apt-get install mtools"
