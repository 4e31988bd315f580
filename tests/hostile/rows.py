"""`pytest -p tests.hostile.rows`: the tests of hostile inputs only, and one line for each row.

A test belongs to the rows whose ids (`h023`, `H127`) are in its name or in that of its parameters.
One that tries many cases says how many: `record_property("cases", 4800)`.
"""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_ROW = re.compile(r"^\| (H\d{3}) \| (.+?) \| (.+?) \|$", re.MULTILINE)
_ID = re.compile(r"(?<![0-9A-Za-z])[Hh](\d{3})(?![0-9A-Za-z])")
_TEST_NAME = re.compile(r"def (test_\w+)")
_PARAMETER = re.compile(r"""["']([Hh]\d{3}(?:[- _][^"']*)?)["']""")

_found: dict[str, Counter[str]] = {}


def rows() -> list[tuple[str, str, str]]:
    """Id, input and outcome, as the documentation has them."""
    return _ROW.findall((ROOT / "docs/hostile-inputs.md").read_text())


def ids_in(name: str) -> set[str]:
    return {f"H{number}" for number in _ID.findall(name)}


def ids_of_tests() -> set[str]:
    """The ids that test names and parameter names in the whole tree have."""
    text = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    return ids_in(" ".join(_TEST_NAME.findall(text) + _PARAMETER.findall(text)))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    meant = [item for item in items if ids_in(item.name) or item.get_closest_marker("hostile")]
    config.hook.pytest_deselected(items=[item for item in items if item not in meant])
    items[:] = meant


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when != "call" and report.passed:
        return
    cases = sum(int(str(n)) for name, n in report.user_properties if name == "cases") or 1
    for row in ids_in(report.nodeid.partition("::")[2]):
        _found.setdefault(row, Counter())[report.outcome] += cases


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for row, what, _ in rows():
        counts = ", ".join(f"{n} {outcome}" for outcome, n in _found.get(row, {}).items())
        terminalreporter.write_line(f"{row}  {what[:80]:80}  {counts or 'not run'}")
