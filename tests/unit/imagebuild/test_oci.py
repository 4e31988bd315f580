import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from extsloader.imagebuild.definition import Container, Entry
from extsloader.imagebuild.oci import ImageConfig, make_runtime, make_spec, to_json

PUBLISHED = Path(__file__).parents[4] / "shared/data/linuxkit-yaml"

IMAGES = {
    "plain": ImageConfig(args=("/bin/default",), env=("PATH=/usr/sbin:/usr/bin:/sbin:/bin",)),
    "labelled": ImageConfig(
        args=("/bin/entry", "arg"),
        env=("A=1",),
        cwd="/srv",
        label=Container.model_validate(
            {
                "capabilities": ["CAP_NET_ADMIN"],
                "binds": ["/run:/run", "/etc/resolv.conf:/etc/resolv.conf:ro"],
                "oomScoreAdj": -100,
            }
        ),
    ),
}


def entry(**keys: Any) -> Entry:
    return Entry.model_validate({"name": "svc", "image": "svc:1"} | keys)


def spec(image: ImageConfig | None = None, **keys: Any) -> dict[str, Any]:
    return make_spec(image or ImageConfig(args=("/bin/svc",)), entry(**keys))


def mount(found: dict[str, Any], destination: str) -> dict[str, Any]:
    (mount,) = [m for m in found["mounts"] if m["destination"] == destination]
    return dict(mount)


@pytest.mark.skipif(not PUBLISHED.exists(), reason="no published definitions here")
@pytest.mark.parametrize("kind", sorted(IMAGES))
def test_published_definitions_come_out_as_linuxkit_makes_them(kind: str) -> None:
    cases = json.loads(gzip.decompress((PUBLISHED / "expected.json.gz").read_bytes()))
    compared = 0
    for case in cases:
        if not case["valid"]:
            continue
        document = yaml.safe_load((PUBLISHED / case["file"]).read_text())
        sections = ("onboot", "onshutdown", "services")
        written = [item for section in sections for item in document.get(section) or ()]
        for item, wanted in zip(written, case[kind], strict=True):
            try:
                checked = Entry.model_validate(item)
            except ValidationError as error:
                assert [e["loc"] for e in error.errors()] == [("mounts", 0, "destination")]  # noqa: PT017 - a mount without destination is the one thing we leave out
                continue
            got = make_spec(IMAGES[kind], checked), make_runtime(IMAGES[kind], checked, [])
            assert json.loads(to_json(got)) == [wanted["config"], wanted["runtime"]], item
            compared += 1
    assert compared > 600


def test_the_definition_replaces_the_label_as_a_whole_and_the_image_comes_last() -> None:
    image = ImageConfig(
        args=("/image",), env=("A=image",), label=Container(command=["/label"], uid=5)
    )

    assert spec(image)["process"]["args"] == ["/label"]
    assert spec(image, command=["/entry"])["process"]["args"] == ["/entry"]
    assert spec(image, env=[])["process"].get("env") is None
    assert spec(image, gid=6)["process"]["user"] == {"uid": 5, "gid": 6}


def test_added_capabilities_join_the_labels_and_given_ones_replace_them() -> None:
    image = ImageConfig(label=Container(capabilities=["CAP_NET_RAW"]))

    added = spec(image, **{"capabilities.add": ["CAP_KILL"]})["process"]["capabilities"]
    given = spec(image, capabilities=["CAP_KILL"])["process"]["capabilities"]

    assert added["effective"] == ["CAP_NET_RAW", "CAP_KILL"]
    assert added["bounding"] == ["CAP_KILL", "CAP_NET_RAW"]
    assert given["effective"] == ["CAP_KILL"]
    assert spec(image, capabilities=["none"])["process"]["capabilities"] == {}
    assert len(spec(image, capabilities=["all"])["process"]["capabilities"]["bounding"]) == 41


def test_a_readonly_service_gets_read_only_dev_and_sys() -> None:
    found = spec(readonly=True)

    assert found["root"] == {"path": "rootfs", "readonly": True}
    assert mount(found, "/dev")["options"][-1] == "ro"
    assert mount(found, "/sys")["options"][-1] == "ro"


def test_a_bind_or_a_tmpfs_replaces_the_default_mount_in_its_place() -> None:
    found = spec(binds=["/dev:/dev", "/persist:/data:ro,nosuid"], tmpfs=["/sys:size=1m", "/t"])

    assert mount(found, "/dev")["options"] == ["rw", "rbind", "rshared"]
    assert mount(found, "/data")["options"] == ["ro", "nosuid", "rbind"]
    assert mount(found, "/sys") == {
        "destination": "/sys",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["size=1m"],
    }
    assert "options" not in mount(found, "/t")


def test_namespaces_are_the_hosts_but_for_pid_and_mount() -> None:
    assert spec()["linux"]["namespaces"] == [{"type": "pid"}, {"type": "mount"}]
    assert spec(pid="host", net="new", ipc="/run/ns/ipc")["linux"]["namespaces"] == [
        {"type": "network"},
        {"type": "ipc", "path": "/run/ns/ipc"},
        {"type": "mount"},
    ]


def test_limits_take_unlimited_and_names_with_and_without_prefix() -> None:
    limits = spec(rlimits=["nofile,100,unlimited", "RLIMIT_CORE,0,0"])["process"]["rlimits"]

    assert limits == [
        {"type": "RLIMIT_NOFILE", "hard": 2**64 - 1, "soft": 100},
        {"type": "RLIMIT_CORE", "hard": 0, "soft": 0},
    ]


def test_parts_of_runtime_are_taken_one_by_one() -> None:
    label = Container.model_validate({"runtime": {"cgroups": ["a"], "mkdir": ["/run/a"]}})
    found = make_runtime(
        ImageConfig(label=label), entry(runtime={"mkdir": ["/run/b"], "namespace": "ns"}), []
    )

    assert (found["cgroups"], found["mkdir"], found["namespace"]) == (["a"], ["/run/b"], "ns")


def test_json_escapes_as_gos_encoder_does() -> None:
    assert (
        to_json({"a": ["<&>é"]})
        == '{\n    "a": [\n        "\\u003c\\u0026\\u003eé"\n    ]\n}'.encode()
    )
