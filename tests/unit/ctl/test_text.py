"""Amounts, tables and colours."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extsloader.ctl.text import Cell, Style, format_age, format_duration, format_size, lay_table
from extsloader.model.severity import Severity, severity
from extsloader.model.text import printable


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (7380, "2 h 3 min"),
        (86400 * 6 + 3700, "6 d 1 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_what_never_began_has_no_age() -> None:
    assert format_age(0.0, 100.0) == "-"
    assert format_age(90.0, 100.0) == "10 s"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "-"),
        (0, "0"),
        (1023, "1023"),
        (1024, "1K"),
        (12 << 20, "12M"),
        (3 << 19, "1.5M"),
        (5 << 40, "5T"),
        (5 << 50, "5120T"),
    ],
)
def test_sizes(size: int | None, text: str) -> None:
    assert format_size(size) == text


def test_columns_are_as_wide_as_their_widest_text() -> None:
    rows = [("a", "1", "x"), ("bbbb", "1000", "")]
    assert lay_table(("NAME", ">N", "WHY"), rows, Style()) == [
        "NAME     N  WHY",
        "a        1  x",
        "bbbb  1000",
    ]


def test_colours_do_not_disturb_the_columns() -> None:
    rows = [(Cell("bad", Severity.ERROR), "x"), (Cell("ok", Severity.GOOD), "y")]
    assert lay_table(("S", "T"), rows, Style(colours=True)) == [
        "\x1b[2mS    T\x1b[0m",
        "\x1b[31mbad\x1b[0m  x",
        "\x1b[32mok\x1b[0m   y",
    ]


@given(st.text())
def test_nothing_from_outside_reaches_the_terminal_raw(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert (shown == text) == text.isprintable()


def test_what_hides_or_moves_is_shown_as_an_escape() -> None:
    assert printable("a\x1b[2J\u202e\n\x9b\udcff\u200b é") == (
        r"a\x1b[2J\u202e\n\x9b\udcff\u200b é"
    )


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("ready", Severity.GOOD),
        ("finished", Severity.GOOD),
        ("blocked", Severity.PASSING),
        ("what is new", Severity.PASSING),
        ("backing-off", Severity.WARNING),
        ("parked", Severity.ERROR),
    ],
)
def test_severities(state: str, expected: Severity) -> None:
    assert severity(state) is expected
