import json
from typing import Any

import yaml

from extsloader.imagebuild.linuxkit.definition import parse_definition
from extsloader.imagebuild.linuxkit.metadata import expand, format_metadata

DEFINITION: dict[str, Any] = {
    "kernel": {"image": "linuxkit/kernel:6", "cmdline": "console=tty0", "tar": "none"},
    "init": ["alpine:3"],
    "services": [
        {
            "env": ["A=yes", "yes", "0644", "a: b"],
            "name": "a",
            "image": "example.org/x/y:1",
            "uid": 0,
            "devices": [{"path": "all", "type": "b"}],
            "resources": {"memory": {"limit": 5}},
            "runtime": {"interfaces": [{"name": "eth0"}]},
            "command": ["/bin/sh"],
        }
    ],
    "files": [{"path": "a", "contents": "x\ny\n"}],
    "volumes": [{"name": "v", "image": "alpine:3", "readonly": False}],
}


def format_it(form: str) -> str:
    return format_metadata(parse_definition(DEFINITION, "x.yml"), form).decode()


def test_yaml_says_the_same_and_quotes_what_would_be_no_text() -> None:
    text = format_it("yaml")

    service = yaml.safe_load(text)["services"][0]
    assert service["env"] == DEFINITION["services"][0]["env"]
    assert '  - A=yes\n  - "yes"\n  - "0644"\n' in text
    assert "  contents: |\n    x\n    y\n" in text


def test_keys_have_linuxkits_order_and_images_their_whole_names() -> None:
    document = json.loads(format_it("json"))

    assert list(document["services"][0]) == [
        *("name", "image", "devices", "command", "env", "uid", "resources", "runtime"),
    ]
    assert document["kernel"] == {
        "image": "docker.io/linuxkit/kernel:6", "cmdline": "console=tty0", "tar": "none",
    }  # fmt: skip
    assert document["init"] == ["docker.io/library/alpine:3"]
    assert document["volumes"] == [{"name": "v", "image": "alpine:3"}]
    assert document["services"][0]["resources"] == {"memory": {"limit": 5}}
    assert document["services"][0]["runtime"]["interfaces"] == [
        {"name": "eth0", "createInRoot": False}
    ]


def test_yaml_has_every_field_of_what_comes_from_the_specification() -> None:
    resources = yaml.safe_load(format_it("yaml"))["services"][0]["resources"]

    assert resources["cpu"] is resources["blockio"] is None
    assert resources["memory"]["limit"] == 5
    assert resources["memory"]["kerneltcp"] is None


def test_whole_names_of_images() -> None:
    assert [expand(name) for name in ("a:1", "b/a:1", "r.io/b/a:1", "")] == [
        "docker.io/library/a:1", "docker.io/b/a:1", "r.io/b/a:1", "",
    ]  # fmt: skip
