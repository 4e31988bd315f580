"""Made-up configuration: settings, or sentences about all that is wrong."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from extsloader.settings.check import check
from extsloader.settings.schema import SettingsTable
from tests.fuzz.budget import fuzz, spoiled

GOOD = b"""enabled = true
log_format = "json"
[limits]
memory = "64M"
pids = 100
[filters]
labels = ["PKGS", "X"]
removable = true
[timeouts]
verify = 1.5
[paths]
watch = ["/persist/a.img"]
[ceiling]
profile = "strict"
"""


def judge(found: SettingsTable | None, problems: list[Any]) -> None:
    assert (found is None) == bool(problems)
    for problem in problems:
        assert len(str(problem)) < 2000


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "extsloader.toml"

    def attempt(raw: bytes) -> None:
        path.write_bytes(raw)
        judge(*check(str(path), "/", {}))

    fuzz(spoiled(GOOD) | st.binary(max_size=60), attempt)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param("a = " + "[" * 60_000, id="arrays"),
        pytest.param("a = " + "{a=" * 20_000, id="tables"),
        pytest.param("[" + "a." * 4000 + "a]", id="one long name"),
        pytest.param("a" + ".a" * 4000 + " = 1", id="one long key"),
        pytest.param("a = " + "9" * 60_000, id="digits"),
        pytest.param("x" * (1 << 17) + " = 1", id="size"),
    ],
)
def test_deep_and_long_ones(tmp_path: Path, raw: str) -> None:
    path = tmp_path / "extsloader.toml"
    path.write_text(raw)
    judge(*check(str(path), "/", {}))


def test_environment(tmp_path: Path) -> None:
    names = st.sampled_from(
        ["ENABLED", "LIMITS__PIDS", "LIMITS", "FILTERS__LABELS", "A__B", "_", "", "A" + "__A" * 20]
    )
    texts = st.text(st.characters(exclude_characters="\0"), max_size=20) | st.sampled_from(
        ["[", "[" * 10_000, '["a",', "9" * 5000, "1e999", "nan", "true", "64M"]
    )
    variables = st.dictionaries(names.map("EXTSLOADER_".__add__), texts, max_size=4)
    fuzz(variables, lambda environ: judge(*check(None, str(tmp_path), environ)), 200)
