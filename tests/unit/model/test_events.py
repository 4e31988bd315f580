"""How a service ended, in words."""

import pytest

from extsloader.model.events import Cause, CauseKind


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (Cause(CauseKind.CODE, 7), "exit code 7"),
        (Cause(CauseKind.SIGNAL, 9), "signal 9"),
        (Cause(CauseKind.OOM, 9), "a kill for lack of memory"),
        (Cause(CauseKind.LOST), "an unknown exit code, as its supervisor was gone"),
    ],
)
def test_an_end_is_told_in_words(cause: Cause, words: str) -> None:
    assert str(cause) == words
