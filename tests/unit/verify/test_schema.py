"""The published JSON Schema is the one that the code has."""

from pathlib import Path

from extsloader.verify.schema import text

FILE = Path(__file__).parents[3] / "manifests" / "manifest.schema.json"


def test_the_file_is_up_to_date() -> None:
    hint = "run python -m extsloader.verify.schema > manifests/manifest.schema.json"
    assert FILE.read_text() == text(), hint
