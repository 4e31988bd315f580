import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from extsloader.imagebuild.linuxkit.definition import load_definition, parse_definition
from extsloader.imagebuild.linuxkit.describe import describe_containers, load_image_config, to_line
from extsloader.imagebuild.linuxkit.spec import ImageConfig
from extsloader.model.errors import SettingsError

PUBLISHED = Path(__file__).parents[5] / "shared/data/linuxkit-yaml"

IMAGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({"Cmd": ["/bin/default"], "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]}, {}),
    "labelled": (
        {"Entrypoint": ["/bin/entry"], "Cmd": ["arg"], "Env": ["A=1"], "WorkingDir": "/srv"},
        {
            "capabilities": ["CAP_NET_ADMIN"],
            "binds": ["/run:/run", "/etc/resolv.conf:/etc/resolv.conf:ro"],
            "oomScoreAdj": -100,
        },
    ),
}


def load(tmp_path: Path, config: object, label: object = None) -> ImageConfig:
    paths = tmp_path / "config.json", tmp_path / "label.json"
    for path, content in zip(paths, (config, label), strict=True):
        path.write_text(json.dumps(content))
    return load_image_config(paths[0], None if label is None else paths[1])


def published() -> list[dict[str, Any]]:
    if not PUBLISHED.exists():
        pytest.skip("no published definitions here")
    cases = json.loads(gzip.decompress((PUBLISHED / "expected.json.gz").read_bytes()))
    assert len(cases) > 90
    return list(cases)


def is_accepted(path: Path) -> bool:
    try:
        load_definition(path)
    except SettingsError:
        return False
    return True


def test_published_definitions_get_linuxkits_verdict() -> None:
    cases = published()

    accepted = [case["file"] for case in cases if is_accepted(PUBLISHED / case["file"])]

    assert accepted == [case["file"] for case in cases if case["valid"]]


@pytest.mark.parametrize("kind", sorted(IMAGES))
def test_published_definitions_come_out_as_linuxkit_makes_them(kind: str, tmp_path: Path) -> None:
    image = load(tmp_path, *IMAGES[kind])
    compared = 0
    for case in published():
        if case["valid"]:
            definition = load_definition(PUBLISHED / case["file"])
            found = describe_containers(definition, image, case["file"])
            assert json.loads(to_line(found)) == case[kind], case["file"]
            assert to_line(found) == to_line(case[kind])
            compared += len(found)
    assert compared > 650


def test_the_label_is_that_of_the_configuration_unless_a_file_gives_another(tmp_path: Path) -> None:
    config = {"Cmd": None, "Labels": {"org.mobyproject.config": '{"pid": "host"}', "x": "y"}}

    assert load(tmp_path, config).label.pid == "host"
    assert load(tmp_path, {"architecture": "amd64", "config": config}).label.pid == "host"
    assert load(tmp_path, config, {"net": "new"}).label.pid is None


def test_what_a_label_adds_is_accepted_and_adds_to_nothing(tmp_path: Path) -> None:
    image = load(tmp_path, {}, {"binds.add": ["/run:/run"]})
    definition = parse_definition({"services": [{"name": "a", "image": "a:1"}]}, "a.yml")

    (found,) = describe_containers(definition, image, "a.yml")

    assert "/run" not in [mount["destination"] for mount in found["config"]["mounts"]]


@pytest.mark.parametrize("label", [{"name": "a"}, {"seccomp": "x"}, ["a"]])
def test_a_label_of_another_form_is_refused(tmp_path: Path, label: object) -> None:
    with pytest.raises(SettingsError, match=r"label\.json"):
        load(tmp_path, {}, label)


def test_what_label_and_definition_cannot_say_together_is_named_with_its_containers(
    tmp_path: Path,
) -> None:
    image = load(tmp_path, {}, {"uid": "nobody"})
    names = [{"name": name, "image": "a:1"} for name in ("a", "b")]

    with pytest.raises(SettingsError) as caught:
        describe_containers(parse_definition({"onboot": names}, "a.yml"), image, "a.yml")

    assert caught.value.problems == tuple(
        f"a.yml: onboot.{name}: uid, gid: expected a number or a known name, got 'nobody'"
        for name in ("a", "b")
    )
