import json
import re
from typing import Any

from extsloader import __version__
from extsloader.imagebuild.debian.packages import Deb
from extsloader.imagebuild.sbom import Part, make_sbom, name_debs, name_requirements

LIBC = Deb("libc6", "2.36-9+deb12u13", "amd64", "a" * 64)
MOSQUITTO = Deb("mosquitto", "1:2.0.11-1", "amd64", "b" * 64)
BROKER = Part(name="extsloader/broker:local", version="1")
CLIENT = Part(name="extsloader/client:local", version="1")
WHOLE = Part(name="rootfs_pkgs", version="1")
IMAGES = {BROKER: name_debs([LIBC, MOSQUITTO]), CLIENT: name_debs([LIBC])}
CONTENTS = {WHOLE: [BROKER, CLIENT], **IMAGES}


def read(contents: dict[Part, list[Part]] = CONTENTS, created: int = 0) -> Any:
    return json.loads(make_sbom("rootfs_pkgs", contents, created))


def list_described(document: Any) -> list[str]:
    names = {package["SPDXID"]: package["name"] for package in document["packages"]}
    return [
        names[relation["relatedSpdxElement"]]
        for relation in document["relationships"]
        if (relation["spdxElementId"], relation["relationshipType"])
        == ("SPDXRef-DOCUMENT", "DESCRIBES")
    ]


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


def test_it_is_about_the_whole_or_else_about_the_images() -> None:
    assert list_described(read()) == [WHOLE.name]
    assert list_described(read(IMAGES)) == [BROKER.name, CLIENT.name]


def test_what_the_standard_asks_for_is_there() -> None:
    document = read(created=1_700_000_000)

    assert document["spdxVersion"] == "SPDX-2.3"
    assert document["dataLicense"] == "CC0-1.0"
    assert document["documentNamespace"].startswith("urn:uuid:")
    assert document["creationInfo"]["created"] == "2023-11-14T22:13:20Z"
    assert document["creationInfo"]["creators"] == [f"Tool: mkext-{__version__}"]
    for package in document["packages"]:
        assert {"SPDXID", "name", "versionInfo", "supplier"} <= package.keys()
        assert package["filesAnalyzed"] is False
        for key in ("downloadLocation", "licenseConcluded", "licenseDeclared", "copyrightText"):
            assert package[key] == "NOASSERTION"


def test_what_is_not_known_is_not_said() -> None:
    (package,) = read({Part(name="lfedge/eve-pillar", version=""): []})["packages"]

    assert not package.keys() & {"versionInfo", "checksums", "externalRefs"}


def test_debian_packages_have_their_archive_and_their_url() -> None:
    (package,) = [p for p in read()["packages"] if p["name"] == "mosquitto"]

    assert package["checksums"] == [{"algorithm": "SHA256", "checksumValue": "b" * 64}]
    (reference,) = package["externalRefs"]
    assert reference["referenceLocator"] == "pkg:deb/debian/mosquitto@1:2.0.11-1?arch=amd64"
    assert package["supplier"] == "Organization: Debian"


def test_package_urls_escape_what_has_a_meaning_in_them() -> None:
    (part,) = name_debs([Deb("libstdc++6", "12.2~rc+x", "amd64", "c" * 64)])

    assert part.purl == "pkg:deb/debian/libstdc%2B%2B6@12.2~rc%2Bx?arch=amd64"


def test_python_projects_are_read_from_the_requirements() -> None:
    text = (
        "# comment\nPyYAML==6.0.4 \\\n    --hash=sha256:00\n    # via x\nTyping_Extensions==4.1\n"
    )

    parts = name_requirements(text, {"typing_extensions": "d" * 64})

    assert [(part.name, part.version, part.purl, part.sha256) for part in parts] == [
        ("PyYAML", "6.0.4", "pkg:pypi/pyyaml@6.0.4", ""),
        ("Typing_Extensions", "4.1", "pkg:pypi/typing-extensions@4.1", "d" * 64),
    ]


def test_the_same_parts_give_the_same_bytes() -> None:
    turned = {CLIENT: IMAGES[CLIENT], BROKER: IMAGES[BROKER][::-1] * 2, WHOLE: [CLIENT, BROKER]}

    assert make_sbom("x", CONTENTS, 0) == make_sbom("x", turned, 0)


def test_no_two_documents_share_a_namespace() -> None:
    documents = [read(), read(created=1), read(IMAGES), read({BROKER: []})]

    assert len({document["documentNamespace"] for document in documents}) == len(documents)
