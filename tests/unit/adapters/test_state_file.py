import errno
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from extsloader.adapters.state_file import HEADER, MAX_BYTES, MAX_FILES, StateFile, decode, encode
from extsloader.model.errors import MachineError
from extsloader.model.reasons import Code


def number(payload: bytes) -> int:
    value = int(payload)
    if value < 0:
        raise ValueError("a number from 0 on expected")
    return value


def state(
    folder: Path, name: str = "floor", kind: str = "floor", version: int = 1
) -> StateFile[int]:
    return StateFile(path=folder / name, kind=kind, decode=number, version=version)


def written(folder: Path, *values: int) -> StateFile[int]:
    found = state(folder)
    for value in values:
        found.write(b"%d" % value)
    return found


def listed(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_what_was_never_written_is_nothing_and_no_loss(tmp_path: Path) -> None:
    found = state(tmp_path / "not/there").read()
    assert (found.value, found.problems, found.lost) == (None, (), False)


def test_what_was_written_last_comes_back_and_the_one_before_is_kept(tmp_path: Path) -> None:
    assert written(tmp_path / "made", 1, 2, 3).read().value == 3
    assert listed(tmp_path / "made") == ["floor", "floor.old"]
    assert (tmp_path / "made/floor").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o700
    (tmp_path / "made/floor").unlink()
    assert state(tmp_path / "made").read().value == 2


def test_no_cut_and_no_flipped_bit_goes_unseen() -> None:
    good = encode("floor", 1, b"12345")
    assert decode(good, "floor", 1) == b"12345"
    cuts = (good[:end] for end in range(len(good)))
    flips = (_flipped(good, bit) for bit in range(8 * len(good)))
    for spoiled in (*cuts, *flips, good + b"\0", bytes(len(good))):
        with pytest.raises(ValueError, match=r"expected|checksum|no state file"):
            decode(spoiled, "floor", 1)


def test_after_any_damage_the_generation_before_counts(tmp_path: Path) -> None:
    found = written(tmp_path, 1, 2)
    good = found.path.read_bytes()
    torn = good[: HEADER // 2] + bytes(len(good) - HEADER // 2)
    cuts = [good[:end] for end in range(len(good))]
    flips = [_flipped(good, bit) for bit in range(0, 8 * len(good), 3)]
    for spoiled in (*cuts, *flips, torn, bytes(4096)):
        found.path.write_bytes(spoiled)
        loaded = found.read()
        assert (loaded.value, len(loaded.problems), loaded.lost) == (1, 1, False)
    assert len(listed(tmp_path / "quarantine")) == MAX_FILES


def test_with_both_generations_damaged_the_loss_is_told(tmp_path: Path) -> None:
    found = written(tmp_path, 1, 2)
    for path in (tmp_path / "floor", tmp_path / "floor.old"):
        path.write_bytes(b"")
    loaded = found.read()
    assert (loaded.value, loaded.lost) == (None, True)
    assert [problem.code for problem in loaded.problems] == [Code.STATE, Code.STATE]
    assert loaded.problems[0].message == (
        f"cannot use the state file {tmp_path}/floor: at least {HEADER} bytes expected, 0 got"
    )
    assert f"kept as {tmp_path}/quarantine/00000001-floor;" in loaded.problems[0].hint
    found.write(b"7")
    assert found.read().value == 7


def _make(kind: str, path: Path) -> None:
    match kind:
        case "directory":
            path.mkdir()
        case "full directory":
            (path / "in it").mkdir(parents=True)
        case "link":
            path.symlink_to("/etc/passwd")
        case "loop":
            path.symlink_to(path)
        case "fifo":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(str(path))
        case _:  # of 1 GiB
            with path.open("wb") as file:
                file.truncate(1 << 30)


@pytest.mark.parametrize("generation", ["floor", "floor.old", "floor.new"])
@pytest.mark.parametrize(
    "kind", ["directory", "full directory", "link", "loop", "fifo", "socket", "huge"]
)
def test_nothing_else_under_its_name_is_ever_in_the_way(
    tmp_path: Path, kind: str, generation: str
) -> None:
    found = written(tmp_path, 1, 2)
    (tmp_path / generation).unlink(missing_ok=True)
    _make(kind, tmp_path / generation)
    assert found.read().value == (1 if generation == "floor" else 2)
    found.write(b"3")
    assert found.read().value == 3
    assert Path("/etc/passwd").stat().st_size < 1 << 20
    kept = [path for path in (tmp_path / "quarantine").glob("*") if path.is_file()]
    assert sum(path.lstat().st_size for path in kept) <= MAX_BYTES


def test_the_file_of_a_newer_agent_is_kept_for_it(tmp_path: Path) -> None:
    written(tmp_path, 1)
    state(tmp_path, version=2).write(b"9")
    future = (tmp_path / "floor").read_bytes()
    loaded = state(tmp_path).read()
    assert loaded.lost, "the newer agent could not read the one before either"
    assert "version 1 expected, 2 got" in loaded.problems[0].message
    assert f"kept as {tmp_path}/floor.future for the agent that" in loaded.problems[0].hint
    assert (tmp_path / "floor.future").read_bytes() == future


def test_the_file_of_an_older_agent_that_this_one_cannot_read_is_put_aside(tmp_path: Path) -> None:
    written(tmp_path, 1)
    loaded = state(tmp_path, version=2).read()
    assert "version 2 expected, 1 got" in loaded.problems[0].message
    assert listed(tmp_path) == ["quarantine", "quarantine/00000001-floor"]


def test_content_may_be_as_long_as_its_limit(tmp_path: Path) -> None:
    found = StateFile(path=tmp_path / "x", kind="x", decode=bytes, limit=1000)
    for size in (0, 999, 1000):
        found.write(b"x" * size)
        assert found.read().value == b"x" * size
    with pytest.raises(MachineError, match="at most 1000 bytes expected, 1001 got"):
        found.write(b"x" * 1001)
    assert found.read().value == b"x" * 1000
    found.path.write_bytes(encode("x", 1, b"x" * 1001))
    loaded = found.read()
    assert loaded.value == b"x" * 999
    assert f"at most {HEADER + 1000} bytes expected" in loaded.problems[0].message
    assert StateFile(path=tmp_path, kind="x", decode=bytes).limit == 65536


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = listed(Path("/proc/self/fd"))
    found = written(tmp_path, 1, 2)
    for kind in ("directory", "fifo", "huge"):
        found.read()
        found.path.unlink(missing_ok=True)
        _make(kind, found.path)
    found.read()
    assert listed(Path("/proc/self/fd")) == before


def test_a_file_under_another_files_name_is_not_taken_for_it(tmp_path: Path) -> None:
    written(tmp_path, 1)
    loaded = state(tmp_path, kind="clock").read()
    assert loaded.lost
    assert "kind clock expected, floor got" in loaded.problems[0].message


def test_a_good_checksum_over_impossible_content_does_not_count(tmp_path: Path) -> None:
    found = written(tmp_path, 1)
    found.path.rename(tmp_path / "floor.old")
    found.path.write_bytes(encode("floor", 1, b"-5"))
    loaded = found.read()
    assert loaded.value == 1
    assert "a number from 0 on expected" in loaded.problems[0].message


def test_a_damaged_file_does_not_push_out_the_good_one_before(tmp_path: Path) -> None:
    found = written(tmp_path, 1, 2)
    found.path.write_bytes(b"damaged while we ran")
    found.write(b"3")
    assert (tmp_path / "quarantine/00000001-floor").read_bytes() == b"damaged while we ran"
    assert (tmp_path / "quarantine").stat().st_mode & 0o777 == 0o700
    found.path.write_bytes(b"and again")
    assert found.read().value == 1


def test_the_quarantine_is_bounded_and_keeps_the_newest(tmp_path: Path) -> None:
    found = state(tmp_path)
    (tmp_path / "quarantine").mkdir()
    (tmp_path / "quarantine/note of an operator").touch()

    def spoil(*sizes: int) -> list[int]:
        for size in sizes:
            found.path.write_bytes(bytes(size))
            told.append(found.read().problems[0].hint)
            assert not found.path.exists()
        return [path.stat().st_size for path in sorted((tmp_path / "quarantine").glob("0*"))]

    told: list[str] = []
    assert (MAX_FILES, MAX_BYTES) == (4, 1 << 20)
    assert spoil(400_000, 400_001) == [400_000, 400_001]
    assert spoil(MAX_BYTES - 800_001) == [400_000, 400_001, MAX_BYTES - 800_001]
    assert spoil(1) == [400_001, MAX_BYTES - 800_001, 1]
    assert spoil(10, 11, 12, 13) == [10, 11, 12, 13]
    assert spoil(MAX_BYTES + 1) == [10, 11, 12, 13]
    assert told[-1].startswith("it is deleted, as the quarantine has no room for it; nothing to do")
    assert spoil(MAX_BYTES) == [MAX_BYTES]
    assert (tmp_path / "quarantine/note of an operator").exists()


def test_directories_in_the_quarantine_go_when_they_are_empty(tmp_path: Path) -> None:
    found = state(tmp_path)
    (tmp_path / "floor/something").mkdir(parents=True)
    assert "it is no regular file" in found.read().problems[0].message
    for _ in range(6):
        (tmp_path / "floor").mkdir()
        found.read()
    kept = [name for name in listed(tmp_path / "quarantine") if "/" not in name]
    assert kept == [f"0000000{n}-floor" for n in (1, 5, 6, 7)]


def test_a_link_is_called_a_link(tmp_path: Path) -> None:
    (tmp_path / "floor").symlink_to("/etc/passwd")
    loaded = state(tmp_path).read()
    assert loaded.problems[0].message.endswith("/floor: it is a symbolic link")


def _calls(names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, fail_at: int) -> list[int]:
    """Make the call with this number fail, of all calls to these functions of `os`."""
    count = [0]

    def wrap(name: str) -> None:
        real = getattr(os, name)

        def call(*arguments: object, **named: object) -> object:
            count[0] += 1
            if count[0] == fail_at:
                raise OSError(errno.EIO, "injected")
            return real(*arguments, **named)

        monkeypatch.setattr(os, name, call)

    for name in names:
        wrap(name)
    return count


def _refuses(found: StateFile[int], payload: bytes) -> bool:
    try:
        found.write(payload)
    except MachineError:
        return True
    return False


@pytest.mark.parametrize("fail_at", range(1, 9))
def test_wherever_a_write_fails_one_of_both_generations_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail_at: int
) -> None:
    found = written(tmp_path, 1, 2)
    with monkeypatch.context() as patch:
        count = _calls(("open", "write", "fsync", "rename"), patch, fail_at)
        said_no = _refuses(found, b"3")
        assert count[0] >= fail_at, "nothing failed"
    loaded = found.read()
    assert loaded.value in ((2, 3) if said_no else (3,))
    assert not loaded.problems
    assert not (tmp_path / "floor.new").exists()
    found.write(b"4")
    assert found.read().value == 4


def test_a_failed_fsync_means_that_nothing_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = written(tmp_path, 1)

    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, "injected")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(MachineError, match=r"E_STATE: cannot write .*: input/output error"):
            found.write(b"2")
    assert found.read().value == 1


def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda to, data: real(to, bytes(data)[:7]))
    assert written(tmp_path, 123456789).read().value == 123456789


@pytest.fixture
def immutable(tmp_path: Path) -> Iterator[Path]:
    written(tmp_path, 1, 2)
    path = tmp_path / "floor"
    path.write_bytes(b"damaged")
    done = subprocess.run(["chattr", "+i", str(path)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("no immutable files here")
    yield path
    subprocess.run(["chattr", "-i", str(path)], check=True)


def test_a_damaged_file_that_cannot_be_moved_is_told_and_left(immutable: Path) -> None:
    loaded = state(immutable.parent).read()
    assert loaded.value == 1
    assert "left where it is: operation not permitted" in loaded.problems[0].hint
    with pytest.raises(MachineError, match="operation not permitted"):
        state(immutable.parent).write(b"3")
    assert state(immutable.parent).read().value == 1


def _flipped(raw: bytes, bit: int) -> bytes:
    spoiled = bytearray(raw)
    spoiled[bit // 8] ^= 1 << bit % 8
    return bytes(spoiled)
