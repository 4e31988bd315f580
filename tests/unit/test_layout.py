"""Promises about the shape of the source tree."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "extsloader"
LONGEST = 400  # lines
HEAVY = {"pydantic", "cryptography", "securesystemslib", "h2"}


def has_functions(source: Path) -> bool:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return any(isinstance(node, kinds) for node in ast.walk(ast.parse(source.read_text("utf-8"))))


DECIDING = [
    path
    for part in ("core", "model")
    for path in PACKAGE.glob(f"{part}/*.py")
    if has_functions(path)
]


@pytest.mark.parametrize("source", sorted(DECIDING), ids=lambda path: path.stem)
def test_every_module_that_decides_something_has_a_test_of_its_own(source: Path) -> None:
    mirror = ROOT / "tests" / "unit" / source.parent.name / f"test_{source.name}"
    assert mirror.exists(), f"write {mirror.relative_to(ROOT)}"


def test_no_file_is_too_long_to_read() -> None:
    lines = {path: len(path.read_text("utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {str(path): count for path, count in lines.items() if count > LONGEST} == {}


def test_the_daemon_stays_small() -> None:
    """import-linter sees what is written; this sees what is loaded in the end."""
    code = f"import extsloader.wiring.ports, sys; print({HEAVY} & sys.modules.keys())"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT)
    assert found.stdout == b"set()\n"
