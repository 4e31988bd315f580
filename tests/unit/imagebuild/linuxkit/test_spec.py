import json
from typing import Any

import pytest

from extsloader.imagebuild.linuxkit.container import Container
from extsloader.imagebuild.linuxkit.definition import Entry
from extsloader.imagebuild.linuxkit.spec import ImageConfig, make_runtime, make_spec, to_json
from extsloader.model.errors import SettingsError


def entry(**keys: Any) -> Entry:
    return Entry.model_validate({"name": "svc", "image": "svc:1"} | keys)


def spec(image: ImageConfig | None = None, **keys: Any) -> dict[str, Any]:
    return make_spec(image or ImageConfig(args=("/bin/svc",)), entry(**keys))


def mount(found: dict[str, Any], destination: str) -> dict[str, Any]:
    (mount,) = [m for m in found["mounts"] if m["destination"] == destination]
    return dict(mount)


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


def test_interfaces_and_bound_namespaces_come_one_by_one_too() -> None:
    label = Container.model_validate({"runtime": {"bindNS": {"net": "/run/a", "ipc": "/run/i"}}})
    own = {"interfaces": [{"name": "eth0", "peer": "veth"}], "bindNS": {"net": "/run/b"}}

    found = make_runtime(ImageConfig(label=label), entry(runtime=own), [])

    assert found["interfaces"] == [{"name": "eth0", "peer": "veth", "createInRoot": False}]
    assert {name: path for name, path in found["bindNS"].items() if path} == {
        "net": "/run/b",
        "ipc": "/run/i",
    }


def test_ambient_capabilities_are_in_every_set_but_the_effective_one() -> None:
    found = spec(capabilities=["CAP_KILL"], ambient=["CAP_CHOWN"])["process"]["capabilities"]

    assert (found["effective"], found["ambient"]) == (["CAP_KILL"], ["CAP_CHOWN"])
    assert found["bounding"] == found["permitted"] == ["CAP_CHOWN", "CAP_KILL"]


def test_all_capabilities_of_a_label_and_one_more_are_a_mistake() -> None:
    image = ImageConfig(label=Container(capabilities=["all"]))

    with pytest.raises(SettingsError, match="only `all` or `none`, got all"):
        spec(image, **{"capabilities.add": ["CAP_KILL"]})


def test_a_mount_needs_no_more_than_its_type_or_its_source() -> None:
    found = spec(mounts=[{"type": "cgroup", "options": ["rw"]}, {"source": "mqueue"}])

    assert mount(found, "/sys/fs/cgroup")["options"] == ["rw"]
    assert mount(found, "/dev/mqueue") == {
        "destination": "/dev/mqueue",
        "type": "mqueue",
        "source": "mqueue",
    }


def test_user_namespaces_and_mappings() -> None:
    mapping = {"hostID": 100000, "containerID": 0, "size": 65536}
    found = spec(userns="new", uidMappings=[mapping], gidMappings=[mapping])["linux"]

    assert {"type": "user"} in found["namespaces"]
    assert list(found["uidMappings"][0].items()) == [
        ("containerID", 0),
        ("hostID", 100000),
        ("size", 65536),
    ]
    assert found["gidMappings"] == found["uidMappings"]


def test_names_of_users_are_looked_up_and_root_is_always_there() -> None:
    said = entry(uid="svc", gid="root", additionalGids=[7, "other"])

    found = make_spec(ImageConfig(), said, {"svc": 100, "other": 101})["process"]["user"]

    assert found == {"uid": 100, "gid": 0, "additionalGids": [7, 101]}
    with pytest.raises(SettingsError, match="got 'other'"):
        make_spec(ImageConfig(), said)


def test_a_device_is_made_and_allowed_and_all_of_a_type_are_only_allowed() -> None:
    linux = spec(
        devices=[
            {"path": "/dev/x", "type": "c", "major": 5, "minor": 1, "mode": "0660"},
            {"path": "all", "type": "b"},
        ],
        resources={"devices": [{"allow": False, "access": "rwm"}]},
    )["linux"]

    assert linux["devices"] == [
        {"path": "/dev/x", "type": "c", "major": 5, "minor": 1, "fileMode": 0o660}
    ]
    assert linux["resources"]["devices"] == [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 5, "minor": 1, "access": "rwm"},
        {"allow": True, "type": "b", "access": "rwm"},
    ]


def test_resources_have_the_names_and_the_order_of_the_oci_specification() -> None:
    found = spec(
        resources={
            "pids": {"limit": 0},
            "memory": {"disableOOMKiller": False, "limit": 1024},
            "cpu": {"cpus": "0-1", "shares": 512},
            "blockio": {"weightDevice": [{"major": 8, "weight": 10}]},
            "hugepageLimits": [{"pageSize": 2097152, "limit": 4194304}],
            "network": {"priorities": [{"name": "eth0", "priority": 1}]},
        }
    )["linux"]["resources"]

    assert json.dumps(found) == json.dumps(
        {
            "memory": {"limit": 1024, "disableOOMKiller": False},
            "cpu": {"shares": 512, "cpus": "0-1"},
            "pids": {"limit": 0},
            "blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 10}]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}],
            "network": {"priorities": [{"name": "eth0", "priority": 1}]},
        }
    )


def test_sysctl_and_annotations_replace_the_labels_and_are_sorted() -> None:
    image = ImageConfig(label=Container(sysctl={"a": "1"}, annotations={"a": "1"}))
    found = spec(image, sysctl={"net.z": "1", "kernel.a": "2"})

    assert list(found["linux"]["sysctl"].items()) == [("kernel.a", "2"), ("net.z", "1")]
    assert found["annotations"] == {"a": "1"}


def test_an_empty_text_leaves_the_labels_word_where_there_is_another_way_to_undo_it() -> None:
    image = ImageConfig(label=Container.model_validate({"net": "new", "cgroupsPath": "/a"}))
    found = spec(image, net="", cgroupsPath="")["linux"]

    assert {"type": "network"} in found["namespaces"]
    assert "cgroupsPath" not in found


def test_json_escapes_as_gos_encoder_does() -> None:
    assert (
        to_json({"a": ["<&>é"]})
        == '{\n    "a": [\n        "\\u003c\\u0026\\u003eé"\n    ]\n}'.encode()
    )
