import json
from dataclasses import replace
from pathlib import Path

import pytest

from extsloader.image.schema import parse_manifest
from extsloader.imagebuild.image import TEST_IDENTITY
from extsloader.imagebuild.linuxkit.definition import load_definition
from extsloader.imagebuild.manifest import PLACEHOLDER, load_services, make_manifest
from extsloader.model.errors import SettingsError

PROJECT = Path(__file__).parents[3]


def merge(directory: Path, *names: str) -> bytes:
    services, problems = load_services(directory, names)
    return make_manifest(PLACEHOLDER, services, TEST_IDENTITY, problems)


def test_the_file_name_gives_name_and_bundle_and_an_empty_file_is_enough(tmp_path: Path) -> None:
    (tmp_path / "broker.yaml").write_text("")

    (service,) = parse_manifest(merge(tmp_path, "broker")).services

    assert (service.name, service.bundle) == ("broker", "containers/services/broker")


def test_all_problems_of_all_files_are_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("requires: [nobody]\nreadiness: {kind: tcp}\n")
    (tmp_path / "b.yaml").write_text("name: b\n")
    (tmp_path / "c.yaml").write_text("resources: {memory: lots}\nrestart: [\n")
    (tmp_path / "d.yaml").write_text("resources: {memory: lots}\nfoo: 1\n")
    (tmp_path / "stray.yaml").write_text("")

    with pytest.raises(SettingsError) as caught:
        merge(tmp_path, "a", "b", "c", "d", "e")

    told = "\n".join(caught.value.problems)
    for part in (
        "stray.yaml: the image definition has no service stray",
        "b.yaml: leave out name",
        "c.yaml: line 3:",
        "e.yaml: no such file",
        "service a: readiness of kind tcp needs port",
        "service a: requires",
        "service d: resources.memory",
        "service d: foo is unknown",
    ):
        assert part in told


def test_services_in_a_circle_are_refused_and_the_circle_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("requires: [b]")
    (tmp_path / "b.yaml").write_text("after: [a]")

    with pytest.raises(SettingsError, match=r"circle: a -> b -> a"):
        merge(tmp_path, "a", "b")


def test_the_same_input_gives_the_same_bytes_and_identity_is_in_them(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("essential: true")
    services, _ = load_services(tmp_path, ["a"])
    identity = replace(TEST_IDENTITY, sequence=7, issued_at=1_700_000_000)

    payload = make_manifest(PLACEHOLDER, services, identity)

    assert payload == make_manifest(PLACEHOLDER, services, identity)
    found = json.loads(payload)
    assert (found["sequence"], found["issued_at"]) == (7, "2023-11-14T22:13:20Z")


def test_the_shipped_manifests_fit_the_shipped_definition() -> None:
    definition = load_definition(PROJECT / "images/rootfs_pkgs.yml.in")

    payload = merge(PROJECT / "manifests", *(entry.name for entry in definition.services))

    services = {service.name: service for service in parse_manifest(payload).services}
    assert set(services) >= {"node-exporter", "broker", "telemetry"}
    kinds = {service.readiness.kind for service in services.values()}
    assert kinds >= {"notify", "exec", "tcp", "http", "file"}
