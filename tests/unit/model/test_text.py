"""Text from outside is made safe to look at."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extsloader.model.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("PKGS-Ä", "PKGS-Ä"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("line\nnext", "line\\nnext"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\udcff", "\\udcff"),
        ("C:\\temp", "C:\\temp"),
    ],
)
def test_nothing_moves_the_cursor_or_hides_a_letter(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(text=st.text(st.characters(exclude_categories=())))
def test_what_is_shown_is_always_printable(text: str) -> None:
    assert printable(text).isprintable()
