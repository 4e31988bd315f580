import json
import re
from typing import Any

from extsloader.imagebuild.debian.packages import Deb
from extsloader.imagebuild.sbom import Part, make_sbom, name_debs, name_requirements

LIBC = Deb("libc6", "2.36-9+deb12u13", "amd64", "a" * 64)
MOSQUITTO = Deb("mosquitto", "1:2.0.11-1", "amd64", "b" * 64)
BROKER = Part(name="extsloader/broker:local", version="1")
CLIENT = Part(name="extsloader/client:local", version="1")
IMAGES = {BROKER: name_debs([LIBC, MOSQUITTO]), CLIENT: name_debs([LIBC])}


def read(images: dict[Part, list[Part]] = IMAGES, created: int = 0) -> Any:
    return json.loads(make_sbom("rootfs_pkgs", images, created))


def test_a_package_of_two_images_is_listed_once_and_belongs_to_both() -> None:
    document = read()

    names = [package["name"] for package in document["packages"]]
    assert sorted(names) == [
        "extsloader/broker:local", "extsloader/client:local", "libc6", "mosquitto", "rootfs_pkgs",
    ]  # fmt: skip
    ids = {package["name"]: package["SPDXID"] for package in document["packages"]}
    owners = {
        relation["spdxElementId"]
        for relation in document["relationships"]
        if relation["relatedSpdxElement"] == ids["libc6"]
    }
    assert owners == {ids[BROKER.name], ids[CLIENT.name]}


def test_every_relation_is_between_things_that_are_there() -> None:
    document = read()

    ids = [package["SPDXID"] for package in document["packages"]] + [document["SPDXID"]]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"SPDXRef-[A-Za-z0-9.-]+", found) for found in ids)
    for relation in document["relationships"]:
        assert {relation["spdxElementId"], relation["relatedSpdxElement"]} <= set(ids)
    assert [r["relationshipType"] for r in document["relationships"]].count("DESCRIBES") == 1


def test_what_the_standard_asks_for_is_there() -> None:
    document = read(created=1_700_000_000)

    assert document["spdxVersion"] == "SPDX-2.3"
    assert document["dataLicense"] == "CC0-1.0"
    assert document["documentNamespace"].startswith("urn:uuid:")
    assert document["creationInfo"]["created"] == "2023-11-14T22:13:20Z"
    assert all(
        {"SPDXID", "name", "downloadLocation"} <= package.keys() for package in document["packages"]
    )


def test_debian_packages_have_their_archive_and_their_url() -> None:
    (package,) = [p for p in read()["packages"] if p["name"] == "mosquitto"]

    assert package["checksums"] == [{"algorithm": "SHA256", "checksumValue": "b" * 64}]
    (reference,) = package["externalRefs"]
    assert reference["referenceLocator"] == "pkg:deb/debian/mosquitto@1%3A2.0.11-1?arch=amd64"


def test_python_projects_are_read_from_the_requirements() -> None:
    text = "# comment\nPyYAML==6.0.4 \\\n    --hash=sha256:00\n    # via x\nh11==0.16.0\n"

    assert [(part.name, part.version, part.purl) for part in name_requirements(text)] == [
        ("PyYAML", "6.0.4", "pkg:pypi/pyyaml@6.0.4"),
        ("h11", "0.16.0", "pkg:pypi/h11@0.16.0"),
    ]


def test_the_same_parts_give_the_same_bytes_and_other_parts_another_name() -> None:
    turned = {CLIENT: IMAGES[CLIENT], BROKER: IMAGES[BROKER][::-1]}

    assert make_sbom("x", IMAGES, 0) == make_sbom("x", turned, 0)
    assert read()["documentNamespace"] != read({BROKER: []})["documentNamespace"]
