import json
from pathlib import Path
from typing import Any

import pytest

from extsloader import __version__
from extsloader.imagebuild.main import main
from extsloader.imagebuild.tools import ARCHITECTURE

DIGEST = f"sha256:{'a' * 64}"
LOCK = "packages.lock" if ARCHITECTURE == "amd64" else f"packages.{ARCHITECTURE}.lock"
DEFINITION = """\
services:
  - {name: broker, image: "extsloader/broker:local"}
  - {name: pillar, image: lfedge/eve-pillar}
  - {name: vtpm, image: lfedge/eve-vtpm}
"""
NEWER = f"Package: mosquitto\nVersion: 2.1\nArchitecture: all\nSHA256: {'c' * 64}\n"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "images/pkg/broker"
    recipe.mkdir(parents=True)
    (recipe / "recipe.yaml").write_text("packages: [mosquitto]\nconfig: {}\n")
    (recipe / LOCK).write_text(f"mosquitto 2.0 all {'b' * 64}\n")
    (tmp_path / "images/images.lock").write_text(f"lfedge/eve-pillar {DIGEST}\n")
    (tmp_path / "pkgs.yml").write_text(DEFINITION)
    return tmp_path


def read_versions(*argv: str) -> dict[str, str | None]:
    out = Path("out.spdx.json")
    assert main(["sbom", "-o", str(out), *argv]) == 0
    document: Any = json.loads(out.read_bytes())
    return {package["name"]: package.get("versionInfo") for package in document["packages"]}


def test_images_from_elsewhere_have_their_locked_digest_or_no_version() -> None:
    assert read_versions("pkgs.yml") == {
        "pkgs": __version__,
        "extsloader/broker:local": __version__,
        "mosquitto": "2.0",
        "lfedge/eve-pillar": DIGEST,
        "lfedge/eve-vtpm": None,
    }


def test_a_recipe_alone_needs_no_definition() -> None:
    assert read_versions("--recipe", "broker").keys() == {"extsloader/broker:local", "mosquitto"}


def test_newer_packages_are_listed_where_a_build_would_take_them(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "pkgnames").write_text("mosquitto\n")
    (project / "show").write_text(NEWER)
    (project / "apt-cache").write_text(f"#!/bin/sh\ncat {project}/$1\n")
    (project / "apt-cache").chmod(0o755)
    monkeypatch.setenv("PATH", f"{project}:/usr/bin:/bin")

    assert read_versions("--recipe", "broker")["mosquitto"] == "2.0"
    assert read_versions("--recipe", "broker", "--allow-newer")["mosquitto"] == "2.1"


def test_python_projects_are_listed_without_being_downloaded(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = project / "images/pkg/broker"
    python = "python: {requirements: device.txt}\n"
    (recipe / "recipe.yaml").write_text(f"packages: [python3]\nconfig: {{}}\n{python}")
    debs = f"libc6 2.36 all {'b' * 64}\nlibpython3.11-stdlib 3.11 all {'c' * 64}\n"
    (recipe / LOCK).write_text(debs)
    (project / "device.txt").write_text(f"h11==0.16.0 --hash=sha256:{'d' * 64}\n")
    monkeypatch.setenv("PATH", "")

    assert read_versions("--recipe", "broker")["h11"] == "0.16.0"


def test_a_recipe_that_is_not_there_leaves_no_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sbom", "--recipe", "borker", "-o", "out.spdx.json"]) == 1

    assert "cannot read images/pkg/borker/recipe.yaml" in capsys.readouterr().err
    assert not Path("out.spdx.json").exists()


@pytest.mark.parametrize("about", [[], ["pkgs.yml", "--recipe", "broker"]])
def test_it_is_about_a_definition_or_about_recipes(about: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["sbom", "-o", "out.spdx.json", *about])
