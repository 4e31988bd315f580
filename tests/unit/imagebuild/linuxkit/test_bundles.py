import json
from collections.abc import Mapping
from typing import Any

import pytest

from extsloader.imagebuild.linuxkit.bundles import Bundle, plan_bundles
from extsloader.imagebuild.linuxkit.container import Container
from extsloader.imagebuild.linuxkit.definition import parse_definition
from extsloader.imagebuild.linuxkit.spec import ImageConfig
from extsloader.model.errors import SettingsError


def plan(
    *services: Mapping[str, Any], image: ImageConfig | None = None, **sections: Any
) -> tuple[Bundle, ...]:
    definition = parse_definition({"services": list(services)} | sections, "pkgs.yml")
    images = dict.fromkeys(definition.images, image or ImageConfig(args=("/svc",)))
    return plan_bundles(definition, images, "pkgs.yml")


def options(bundle: Bundle) -> list[str]:
    return list(json.loads(bundle.runtime)["mounts"][-1]["options"])


def binds(bundle: Bundle) -> dict[str, tuple[str, list[str]]]:
    mounts = json.loads(bundle.config)["mounts"]
    return {m["destination"]: (m["source"], m["options"]) for m in mounts if m["type"] == "bind"}


def test_an_image_is_unpacked_by_its_first_user_and_later_ones_point_there() -> None:
    first, second = plan({"name": "a", "image": "x:1"}, {"name": "b", "image": "x:1"})

    assert (first.content, first.empty) == ("lower", ("tmp", "rootfs"))
    assert (second.content, second.empty) == (None, ("tmp", "rootfs"))
    assert options(second)[0] == "lowerdir=/containers/services/a/lower"
    assert options(second)[1] == "upperdir=/containers/services/b/tmp/upper"


def test_a_readonly_service_is_bound_onto_itself_or_from_the_first_user() -> None:
    first, second = plan(
        {"name": "a", "image": "x:1", "readonly": True},
        {"name": "b", "image": "x:1", "readonly": True},
    )

    assert (first.content, first.empty) == ("rootfs", ())
    assert (second.content, second.empty) == (None, ("rootfs",))
    assert json.loads(second.runtime)["mounts"] == [
        {
            "destination": "/containers/services/b/rootfs",
            "source": "/containers/services/a/rootfs",
            "options": ["bind"],
        }
    ]


def test_an_image_is_unpacked_once_in_all_sections_which_come_in_linuxkits_order() -> None:
    pillar = {"name": "pillar", "image": "pillar:1"}
    bundles = plan(
        pillar,
        onboot=[{"name": "rngd", "image": "rngd:1"}, pillar | {"name": "pillar-onboot"}],
        onshutdown=[pillar],
    )

    assert [bundle.path for bundle in bundles] == [
        "containers/onboot/000-rngd",
        "containers/onboot/001-pillar-onboot",
        "containers/onshutdown/000-pillar",
        "containers/services/pillar",
    ]
    assert [bundle.content for bundle in bundles] == ["lower", "lower", None, None]
    lower = "lowerdir=/containers/onboot/001-pillar-onboot/lower"
    assert [options(bundle)[0] for bundle in bundles[1:]] == [lower] * 3


def test_binds_of_volumes_get_the_place_of_the_volume() -> None:
    image = ImageConfig(label=Container(binds=["vol:/label:ro"]))
    (bundle,) = plan(
        {"name": "a", "image": "x:1", "binds.add": ["vol:/vol", "/run:/run"]},
        volumes=[{"name": "vol"}],
        image=image,
    )

    merged = "/containers/volumes/vol/merged"
    assert binds(bundle) == {
        "/label": (merged, ["ro", "rbind"]),
        "/vol": (merged, ["rw", "rbind", "rshared"]),
        "/run": ("/run", ["rw", "rbind", "rshared"]),
    }


def test_a_label_that_names_an_unknown_volume_is_refused_for_each_container() -> None:
    image = ImageConfig(label=Container(binds=["vol:/vol"]))
    with pytest.raises(SettingsError) as caught:
        plan({"name": "a", "image": "x:1"}, {"name": "b", "image": "x:1"}, image=image)

    problem = "binds: expected a path or the name of a volume, got 'vol:/vol'"
    assert caught.value.problems == (
        f"pkgs.yml: services.a: {problem}",
        f"pkgs.yml: services.b: {problem}",
    )


def test_a_user_may_be_named_after_a_container() -> None:
    _, second = plan(
        {"name": "a", "image": "x:1"}, {"name": "b", "image": "x:1", "uid": "b", "gid": "a"}
    )

    assert json.loads(second.config)["process"]["user"] == {"uid": 101, "gid": 100}
