"""F65: a short nemesis run; and its checker, which has to find what it looks for."""

import json
import secrets
from pathlib import Path

import pytest

from tests.fakes.real_images import BUSYBOX
from tests.faults.nemesis import check, run

SECONDS = 45.0
WELL = {
    "kind": "status", "boottime": 1.0, "seconds": 0.1, "state": "ready", "well": True,
    "sequence": 1, "floors": {"test": 1}, "pids": {"a": 7}, "mode": {"a": "ready"},
}  # fmt: skip

HISTORIES: dict[str, tuple[list[dict[str, object]], str]] = {
    "nothing wrong": ([WELL, {"kind": "plug", "sequence": 9}, WELL], ""),
    "no answer": ([WELL | {"seconds": 9.0}], "I8"),
    "lowered floor": ([WELL, WELL | {"floors": {}}], "I5"),
    "unsigned image": ([{"kind": "plug", "sequence": 9}, WELL | {"sequence": 9}], "I1"),
    "older image": ([WELL | {"floors": {"test": 2}}, WELL | {"floors": {"test": 2}}], "I1"),
    "disturbed by a bad stick": (
        [WELL, {"kind": "plug", "sequence": 9}, WELL | {"pids": {"a": 8}}], "I12"),
    "no end": ([WELL | {"well": False}], "I10"),
    "leftovers": ([WELL, {"kind": "end", "code": 0, "left": ["mount /x"]}], "I2"),
}  # fmt: skip


@pytest.mark.parametrize(("history", "wrong"), HISTORIES.values(), ids=HISTORIES)
def test_the_checker_finds_it(tmp_path: Path, history: list[dict[str, object]], wrong: str) -> None:
    file = tmp_path / "history"
    file.write_text("\n".join(json.dumps(entry | {"boottime": 1.0}) for entry in history))
    assert {line.split(":")[0].split(",")[0] for line in check(file)} == (
        {wrong} if wrong else set()
    )


@pytest.mark.nemesis
@pytest.mark.root
@pytest.mark.timeout(300)
def test_f65_faults_in_any_order_break_no_invariant(tmp_path: Path) -> None:
    if not BUSYBOX.exists():
        pytest.skip("busybox-static is not installed")
    seed = secrets.randbelow(1 << 32)
    print(f"python -m tests.faults.nemesis --seed {seed}")
    wrong, counts = run(seed, SECONDS, tmp_path)
    assert not wrong, (wrong, (tmp_path / "log").read_text())
    assert counts["kill agent"] + counts["plug"] + counts["kill service"] > 0
