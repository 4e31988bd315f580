from pathlib import Path
from typing import Any

import pytest

from extsloader.imagebuild.definition import load_definition, parse_definition
from extsloader.model.errors import SettingsError


def problems(*services: dict[str, Any], **top: Any) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        parse_definition({"services": list(services)} | top, "pkgs.yml")
    return caught.value.problems


def test_unknown_keys_are_all_named_with_their_place() -> None:
    assert problems(
        {"name": "a", "image": "a:1", "privileged": True},
        {"name": "b", "image": "b:1", "runtime": {"hooks": []}},
        kernel={"image": "kernel"},
    ) == (
        "pkgs.yml.services.0.privileged: extra inputs are not permitted",
        "pkgs.yml.services.1.runtime.hooks: extra inputs are not permitted",
        "pkgs.yml.kernel: extra inputs are not permitted",
    )


@pytest.mark.parametrize("name", ["../evil", "", "a/b", "UPPER", "x" * 33, "a\n"])
def test_names_that_would_not_be_plain_directories_are_refused(name: str) -> None:
    assert "services.0.name" in problems({"name": name, "image": "a:1"})[0]


def test_a_boolean_is_no_number_and_a_large_id_is_refused() -> None:
    assert len(problems({"name": "a", "image": "a:1", "uid": True, "gid": 2**31})) == 2


@pytest.mark.parametrize(
    "keys",
    [
        {"binds": ["/run"]},
        {"binds.add": ["/a:/b:ro:rshared"]},
        {"tmpfs": ["run"]},
        {"rlimits": ["nofile,100"]},
        {"rlimits": ["nofile,1,-1"]},
    ],
)
def test_texts_that_have_parts_must_have_all_of_them(keys: dict[str, Any]) -> None:
    (problem,) = problems({"name": "a", "image": "a:1"} | keys)

    assert problem.startswith(f"pkgs.yml.services.0.{next(iter(keys))}.0: string should match")


def test_a_service_that_is_there_twice_is_named() -> None:
    one = {"name": "a", "image": "a:1"}
    assert problems(one, one) == ("pkgs.yml.services: a is there twice",)


def test_a_key_given_twice_is_an_error_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "pkgs.yml"
    path.write_text("services:\n  - name: a\n    image: a:1\n    image: b:1\n")

    with pytest.raises(SettingsError, match=r"line 4: 'image' is given twice"):
        load_definition(path)


def test_a_file_that_is_not_there_or_no_yaml_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read"):
        load_definition(tmp_path / "none.yml")
    (tmp_path / "bad.yml").write_text("a: [")
    with pytest.raises(SettingsError, match="line 1"):
        load_definition(tmp_path / "bad.yml")
