"""docs/operations.md names every setting and its default."""

from dataclasses import fields
from pathlib import Path

from extsloader.model.settings import Settings
from extsloader.settings.check import check

PAGE = Path(__file__).parents[3] / "docs/operations.md"


def test_every_setting_is_in_the_table() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    keys = " ".join(row.split("|")[1] for row in rows)
    for item in fields(Settings):
        value = getattr(Settings(), item.name)
        if not hasattr(value, "__dataclass_fields__"):
            assert f"`{item.name}`" in keys
            continue
        for inner in fields(value):
            full, short = f"`{item.name}.{inner.name}`", f"`.{inner.name}`"
            assert full in keys or short in keys, full


def test_the_settings_for_eve_are_good(tmp_path: Path) -> None:
    text = (PAGE.parent / "eve.md").read_text()
    file = tmp_path / "extsloader.toml"
    file.write_text(text.split("```toml\n")[1].split("```")[0])
    settings, problems = check(str(file), "/", {})
    assert not problems
    assert settings
    assert settings.pillar.enabled
