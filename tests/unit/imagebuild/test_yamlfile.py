from pathlib import Path

import pytest

from extsloader.imagebuild.yamlfile import load_yaml, parse_yaml, read_json
from extsloader.model.errors import SettingsError


def test_texts_are_texts_as_in_yaml_1_2() -> None:
    found = parse_yaml(b"[no, on, 22:22, 010, 0x10, true, -5, 1.5]", "a.yml").content

    assert found == ["no", "on", "22:22", 8, 16, True, -5, 1.5]


def test_merged_mappings_may_be_overridden() -> None:
    text = b"base: &base {a: 1, b: 2}\nother: {<<: *base, b: 3}\n"

    assert parse_yaml(text, "a.yml").content == {
        "base": {"a": 1, "b": 2},
        "other": {"a": 1, "b": 3},
    }


def test_an_empty_file_is_an_empty_mapping(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("# nothing\n")
    assert load_yaml(tmp_path / "a.yml") == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"a: 1\nb: 1\na: 2\n", "line 3: 'a' is given twice"),
        (b"? [a]\n: b\n", "line 1: expected a plain key"),
        (b"a: [", "line 1: "),
        (b"a: \x01", "expected YAML"),
        (b"\xff\xff", "expected YAML"),
        (b"a: 2020-13-45", "expected YAML, got month must be in 1..12"),
        (b"a: !!python/name:os.system", "line 1: could not determine a constructor"),
        (b"[" * 2000, "expected YAML"),
    ],
)
def test_what_is_no_plain_yaml_is_refused_with_its_line(text: bytes, told: str) -> None:
    with pytest.raises(SettingsError, match=r"cannot read a\.yml") as caught:
        parse_yaml(text, "a.yml")
    assert told in str(caught.value.problems)


@pytest.mark.parametrize("text", [b"{", b"\xff", b"[" * 5000])
def test_what_is_no_json_is_refused(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(SettingsError, match="expected JSON"):
        read_json(tmp_path / "a.json")


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read .*: no such file"):
        load_yaml(tmp_path / "none.yml")
