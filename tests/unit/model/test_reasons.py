"""The closed list of reasons."""

import re
from pathlib import Path

import pytest

from extsloader.model.reasons import MEANINGS, TRANSIENT, Code, Problem

PAGE = Path(__file__).parents[3] / "docs/operations.md"


@pytest.mark.parametrize("code", Code)
def test_every_code_has_one_form_and_a_meaning(code: Code) -> None:
    assert re.fullmatch(r"E_[A-Z_]+", code)
    assert re.fullmatch(r"[a-z].*[^.]", MEANINGS[code])


@pytest.mark.parametrize("code", Code)
def test_operators_can_look_up_every_code(code: Code) -> None:
    assert f"| `{code}` | {MEANINGS[code]} |" in PAGE.read_text()


def test_only_what_may_pass_by_itself_is_tried_again() -> None:
    verdicts = {Code.SIGNATURE, Code.DIGEST, Code.EXPIRED, Code.LAYOUT, Code.GONE}
    assert not TRANSIENT & verdicts


def test_a_problem_is_shown_with_its_code() -> None:
    assert str(Problem(Code.IO, "cannot read it", "try again")) == "E_IO: cannot read it"
