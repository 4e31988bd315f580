"""The profiles against real definitions: those of this repository, and those of EVE."""

import gzip
import json
from pathlib import Path

import pytest

from extsloader.imagebuild.debian.recipe import load_images
from extsloader.imagebuild.linuxkit.bundles import plan_bundles
from extsloader.imagebuild.linuxkit.definition import load_definition
from extsloader.imagebuild.linuxkit.spec import ImageConfig
from extsloader.model.machine import Machine
from extsloader.model.settings import Settings
from tests.fakes.bundles import good

REPOSITORY = Path(__file__).parents[3]
PUBLISHED = REPOSITORY.parent / "shared/data/linuxkit-yaml/expected.json.gz"


def test_the_services_of_the_pkgs_image_are_within_the_default() -> None:
    definition = load_definition(REPOSITORY / "images/rootfs_pkgs.yml.in")
    recipes, _ = load_images(definition, REPOSITORY / "images/pkg")
    images = {
        name: ImageConfig(args=tuple(recipe.config.command or ("/svc",)), label=recipe.config)
        for name, recipe in recipes.items()
    }
    bundles = plan_bundles(definition, images, "rootfs_pkgs.yml")
    assert len(bundles) == 5
    for bundle in bundles:
        runtime = bundle.runtime.decode().replace(bundle.path, "containers/services/zeta")
        good(bundle.config.decode(), runtime, settings=Settings())


def test_all_that_eve_and_linuxkit_published_is_within_trusted() -> None:
    if not PUBLISHED.exists():
        pytest.skip("no published definitions here")
    cases = json.loads(gzip.decompress(PUBLISHED.read_bytes()))
    containers = [one for case in cases for one in case.get("plain") or ()]
    assert len(containers) > 600
    for container in containers:
        config = container["config"]
        for mount in config["mounts"]:
            if mount["type"] == "bind" and not mount["source"].startswith("/"):  # a volume
                mount["source"] = f"/containers/volumes/{mount['source']}/merged"
        asked = config["process"].get("capabilities", {}).get("bounding", ())
        machine = Machine(arch="amd64", capabilities=frozenset(asked))
        granted = json.loads(good(config, container["runtime"], machine).spec)
        assert granted["process"].get("oomScoreAdj") == config["process"].get("oomScoreAdj")
        assert granted["linux"]["namespaces"] == config["linux"]["namespaces"]
