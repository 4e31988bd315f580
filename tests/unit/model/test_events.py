"""How a service ended, in words."""

import pytest

from extsloader.model.events import Cause, CauseKind


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (Cause(CauseKind.CODE, 7), "exit code 7"),
        (Cause(CauseKind.SIGNAL, 9), "signal 9"),
        (Cause(CauseKind.OOM, 9), "killed: out of memory"),
        (Cause(CauseKind.LOST), "its supervisor conmon ended, exit code unknown"),
    ],
)
def test_an_end_is_told_in_words(cause: Cause, words: str) -> None:
    assert str(cause) == words
