"""Says one line for every row that ran: its id, how it went, how many cases, the first one."""

import re
from collections import defaultdict

import pytest

_ROW = re.compile(r"(?:\[|_)([Hh]\d{3})[-_]([^\]]*)")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows: defaultdict[str, list[str]] = defaultdict(list)
    outcomes: defaultdict[str, set[str]] = defaultdict(set)
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            found = _ROW.search(getattr(report, "nodeid", ""))
            if found and "tests/hostile/" in report.nodeid:
                rows[found[1].upper()].append(found[2])
                outcomes[found[1].upper()].add(outcome)
    for row in sorted(rows):
        said = "+".join(sorted(outcomes[row]))
        terminalreporter.write_line(f"{row} {said:7} {len(rows[row]):3} cases: {rows[row][0]}")
