from pathlib import Path

import pytest

from extsloader.adapters.store import Store
from extsloader.model.errors import MachineError
from extsloader.model.ids import Digest
from extsloader.model.reasons import Code

DIGEST = Digest("ab" * 32)


def test_the_store_is_closed_to_others(tmp_path: Path) -> None:
    store = Store(f"{tmp_path}/state/store")
    store.ensure()
    (tmp_path / "state/store").chmod(0o755)
    store.ensure()
    assert (tmp_path / "state/store").stat().st_mode & 0o777 == 0o700


def test_h172_what_a_crash_left_is_removed_at_the_start_and_nothing_else(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"{number:064x}.img.new").touch()
    others = {f"{DIGEST}.img", f"{DIGEST}.img.old", "x.img.new", f"{DIGEST}.new"}
    for name in others:
        (tmp_path / name).touch()
    (tmp_path / f"{DIGEST}.img.new").mkdir()

    Store(str(tmp_path)).ensure()

    assert {path.name for path in tmp_path.iterdir()} == others | {f"{DIGEST}.img.new"}


def test_dropping_deletes_one_image_and_twice_is_once(tmp_path: Path) -> None:
    (tmp_path / f"{DIGEST}.img").touch()
    (tmp_path / f"{'cd' * 32}.img").touch()
    for _ in range(2):
        Store(str(tmp_path)).drop(DIGEST)
    assert [path.name for path in tmp_path.iterdir()] == [f"{'cd' * 32}.img"]


@pytest.mark.parametrize(
    "name", ["", "../x", "AB" * 32, "ab" * 31, "ab" * 32 + "\n", "/etc/passwd"]
)
def test_what_is_no_digest_deletes_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(MachineError, match="it is no digest") as refused:
        Store(str(tmp_path)).drop(Digest(name))
    assert refused.value.problem.code is Code.PATH


def test_a_file_system_that_refuses_is_a_machine_error(tmp_path: Path) -> None:
    (tmp_path / f"{DIGEST}.img").mkdir()
    with pytest.raises(MachineError, match="cannot delete the image abababababab from the store"):
        Store(str(tmp_path)).drop(DIGEST)
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match="cannot make the image store"):
        Store(f"{tmp_path}/file/store").ensure()
