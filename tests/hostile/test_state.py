"""State files that somebody had his hands on: each real kind, through the real reader.

Nothing of them is a reason not to start: what cannot be used is put aside, told, and the generation
before counts. What any kind of file does to the reader: tests/unit/adapters/test_state_file.py.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from extsloader.adapters.state_file import HEADER, MAX_FILES, StateFile, encode
from extsloader.core import floor
from extsloader.model.history import History, ServiceRecord
from extsloader.model.ids import Digest, ServiceName
from extsloader.model.reasons import Code
from extsloader.model.status import Change
from extsloader.model.trust import Memory, Release
from extsloader.runtime.memory_work import decode_clock, decode_memory
from extsloader.wiring.ports import decode_history

pytestmark = pytest.mark.hostile

RECORD = ServiceRecord(digest=Digest("ab" * 32), phase="parked", restarts=4)
CHANGE = Change(wall=5.0, subject="agent", old="a", new="b", reason="so", code=Code.EXIT)
KINDS: dict[str, tuple[Callable[[bytes], Any], object, object]] = {
    "images": (
        decode_memory,
        Memory(floors=(Release(name="pkgs", sequence=7),)),
        Memory(floors=(Release(name="pkgs", sequence=8),), key_epoch=2),
    ),
    "clock": (decode_clock, 5.5, 6.5),
    "history": (
        decode_history,
        History(boot="b", starts=1),
        History(boot="b", services={ServiceName("a"): RECORD}, changes={"agent": (CHANGE,)}),
    ),
}
"""Decoder, an older value and a newer one."""


def file(folder: Path, kind: str) -> StateFile[Any]:
    return StateFile(path=folder / kind, kind=kind, decode=KINDS[kind][0])


def written(folder: Path, kind: str) -> StateFile[Any]:
    found = file(folder, kind)
    for value in KINDS[kind][1:]:
        found.write(msgspec.json.encode(value))
    return found


@pytest.mark.parametrize("kind", [pytest.param(kind, id=f"h164-{kind}") for kind in KINDS])
def test_whatever_a_bad_disk_does_the_generation_before_counts(
    tmp_path: Path, kind: str, record_property: Callable[[str, object], None]
) -> None:
    found = written(tmp_path, kind)
    good = found.path.read_bytes()
    cuts = (good[:end] for end in range(0, len(good), 3))
    flips = (flipped(good, bit) for bit in range(0, 8 * len(good), 7))
    all_spoiled = (*cuts, *flips, b"", bytes(4096))
    for spoiled in all_spoiled:
        found.path.write_bytes(spoiled)
        loaded = found.read()
        assert (loaded.value, len(loaded.problems), loaded.lost) == (KINDS[kind][1], 1, False)
    assert len(list((tmp_path / "quarantine").iterdir())) == MAX_FILES
    record_property("cases", len(all_spoiled))


@pytest.mark.parametrize("kind", [pytest.param(kind, id=f"h165-{kind}") for kind in KINDS])
def test_what_a_newer_agent_wrote_is_kept_for_it(tmp_path: Path, kind: str) -> None:
    found = written(tmp_path, kind)
    future = encode(kind, 2, b"what only it understands")
    found.path.write_bytes(future)
    loaded = found.read()
    assert loaded.value == KINDS[kind][1]
    assert "version 1 expected, 2 got" in loaded.problems[0].message
    assert (tmp_path / f"{kind}.future").read_bytes() == future


SWAPS = [(name, other) for name in KINDS for other in KINDS if name != other]


@pytest.mark.parametrize(
    ("kind", "other"), [pytest.param(*swap, id="h166-" + "-under-".join(swap)) for swap in SWAPS]
)
def test_a_file_under_anothers_name_is_not_taken_for_it(
    tmp_path: Path, kind: str, other: str
) -> None:
    """Without its kind an empty history would be a memory without floors."""
    written(tmp_path, kind)
    (tmp_path / kind).rename(tmp_path / other)
    loaded = file(tmp_path, other).read()
    assert (loaded.value, loaded.lost) == (None, True)
    assert f"kind {other} expected, {kind} got" in loaded.problems[0].message
    assert decode_memory(msgspec.json.encode(History())) == Memory()


IMPOSSIBLE = [
    ("images", b'{"floors": [{"name": "pkgs", "sequence": -1}]}'),
    ("images", b'{"floors": {"name": "pkgs"}}'),
    ("images", b"[" * 50_000),
    ("clock", b"-1"),
    ("clock", b"1e300"),
    ("clock", b"null"),
    ("history", b'{"starts": -1}'),
    ("history", b'{"started": 1e300}'),
    ("history", b'{"holds": {"web": "for ever"}}'),
    ("history", b'{"services": {"web": {"digest": "", "phase": "idle", "restarts": -5}}}'),
    (
        "history",
        b'{"changes": {"agent": [' + b",".join([msgspec.json.encode(CHANGE)] * 33) + b"]}}",
    ),
    ("history", b'{"boot": "\xff"}'),
]


@pytest.mark.parametrize(
    ("kind", "payload"),
    [pytest.param(*row, id=f"h167-{row[0]}-{n}") for n, row in enumerate(IMPOSSIBLE)],
)
def test_a_good_checksum_over_impossible_content_counts_for_nothing(
    tmp_path: Path, kind: str, payload: bytes
) -> None:
    found = written(tmp_path, kind)
    found.path.write_bytes(encode(kind, 1, payload))
    loaded = found.read()
    assert (loaded.value, len(loaded.problems)) == (KINDS[kind][1], 1)


@pytest.mark.parametrize("kind", [pytest.param(kind, id=f"h167-edits-of-{kind}") for kind in KINDS])
def test_no_edit_of_the_content_is_a_surprise(
    kind: str, record_property: Callable[[str, object], None]
) -> None:
    """Whatever is read is a value, or a reason: nothing else may leave the decoder."""
    decode, _, value = KINDS[kind]
    good = msgspec.json.encode(value)
    edits = [good[:end] for end in range(len(good))]
    edits += [flipped(good, bit) for bit in range(8 * len(good))]
    refused = 0
    for edit in edits:
        try:
            decode(edit)
        except ValueError:
            refused += 1
    assert refused > len(good) // 2
    record_property("cases", len(edits))


def test_h168_an_older_generation_of_the_floor_loses_against_any_other_copy(
    tmp_path: Path,
) -> None:
    """With one copy alone it cannot be noticed; docs/security.md and a flag say so."""
    found = written(tmp_path, "images")
    newer: Memory = found.read().value or Memory()
    found.path.unlink()
    replayed = found.read()
    older: Memory = replayed.value or Memory()
    assert (older, replayed.problems) == (KINDS["images"][1], ())
    assert floor.join([older, newer]) == newer


def test_h169_a_history_of_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    found = written(tmp_path, "history")
    with found.path.open("wb") as huge:
        huge.truncate(1 << 30)
    loaded = found.read()
    assert loaded.value == KINDS["history"][1]
    assert f"at most {HEADER + found.limit} bytes expected" in loaded.problems[0].message
    assert not list((tmp_path / "quarantine").iterdir())


def flipped(raw: bytes, bit: int) -> bytes:
    spoiled = bytearray(raw)
    spoiled[bit // 8] ^= 1 << bit % 8
    return bytes(spoiled)
