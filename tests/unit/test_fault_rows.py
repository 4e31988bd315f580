"""The page of faults and the tests are held together."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (F\d\d) \|.*\| ([HUV]) \| (.+) \|$", re.MULTILINE)
ROWS = ROW.findall((ROOT / "docs/faults.md").read_text())
WITHOUT_A_TEST = {"F21", "F26", "F35", "F41", "F50"}  # may only become fewer


def test_the_page_has_each_fault_once_and_in_order() -> None:
    assert [row for row, _, _ in ROWS] == [f"F{number:02}" for number in range(1, 66)]


def test_each_fault_has_tests_that_exist() -> None:
    text = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    known = set(re.findall(r"def test_(\w+)", text))
    named = {row: set(re.findall(r"`(\w+)`", tests)) for row, _, tests in ROWS}
    assert {row for row, names in named.items() if not names} == WITHOUT_A_TEST
    assert {name for names in named.values() for name in names} <= known


def test_each_test_that_names_a_fault_is_on_the_page() -> None:
    text = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    numbered = set(re.findall(r"def test_(f\d\d_\w+)", text))
    assert numbered <= {name for _, _, tests in ROWS for name in re.findall(r"`(\w+)`", tests)}
