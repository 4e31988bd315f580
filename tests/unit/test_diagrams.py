"""The committed diagrams are those of the tables."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_diagrams_are_up_to_date() -> None:
    draw = runpy.run_path(str(ROOT / "docs" / "diagrams.py"))["draw"]
    committed = (ROOT / "docs" / "states.md").read_text(encoding="utf-8")
    assert committed == draw(), "run `make generate`"
