import re
import subprocess
from pathlib import Path

import pytest

from extsloader.imagebuild.debian.recipe import Recipe, load_images, load_lock, load_recipe
from extsloader.imagebuild.debian.rootfs import apply_recipe
from extsloader.imagebuild.linuxkit.definition import Definition, parse_definition
from extsloader.imagebuild.tree import Kind, Node, read_content
from extsloader.model.errors import SettingsError

PROJECT = Path(__file__).parents[4]
RECIPES = PROJECT / "images/pkg"


def write(directory: Path, text: str, name: str = "demo") -> Recipe:
    (directory / name).mkdir()
    (directory / name / "recipe.yaml").write_text(text)
    return load_recipe(directory / name)


def test_every_mistake_in_a_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        write(tmp_path, "packages: []\nprune: [/usr]\nconfig: {seccomp: none}\n")

    places = [problem.split("recipe.yaml:")[1].split(": ")[:2] for problem in caught.value.problems]
    assert places == [["1", "packages"], ["2", "prune.0"], ["3", "config.seccomp"]]


def test_a_recipe_without_lock_says_how_to_get_one(tmp_path: Path) -> None:
    recipe = write(tmp_path, "packages: [busybox]\nconfig: {}\n")

    with pytest.raises(SettingsError, match="run `mkext lock --arch amd64 demo`"):
        load_lock(recipe, "amd64")


def define(*images: str) -> Definition:
    services = [{"name": f"s{i}", "image": image} for i, image in enumerate(images)]
    return parse_definition({"services": services}, "pkgs.yml")


def test_images_of_recipes_and_others_are_told_apart(tmp_path: Path) -> None:
    write(tmp_path, "packages: [busybox]\nconfig: {}\n", "ours")

    recipes, others = load_images(define("lfedge/eve-guacd:1", "extsloader/ours:local"), tmp_path)

    assert list(recipes) == ["extsloader/ours:local"]
    assert others == ("lfedge/eve-guacd:1",)


def test_missing_recipes_are_named_together(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load_images(define("extsloader/none:local", "extsloader/nil:local"), tmp_path)

    assert [text.partition(":")[0][-16:] for text in caught.value.problems] == [
        "none/recipe.yaml",
        "/nil/recipe.yaml",
    ]


def test_a_recipe_adds_users_directories_links_and_files_to_its_packages(tmp_path: Path) -> None:
    recipe = write(
        tmp_path,
        "packages: [busybox]\nprune: [usr/bin/vi]\nusers: {web: 80}\ndirectories: {run/web: 80}\n"
        "links: {bin/sh: busybox}\nconfig: {}\n",
    )
    (recipe.files / "etc").mkdir(parents=True)
    (recipe.files / "etc/web.conf").write_text("port 80")
    packages = {
        path: Node(kind=Kind.FILE, content=path.encode())
        for path in ("bin/busybox", "usr/bin/vi", "etc/web.conf", "usr/share/doc/busybox/copyright")
    }

    tree = apply_recipe(packages, recipe)

    assert tree["usr/bin/sh"].target == "busybox"
    assert tree["bin"].target == "usr/bin"
    assert tree["etc/web.conf"].content == b"port 80"
    assert tree["run/web"].uid == tree["run/web"].gid == 80
    assert b"web:x:80:80:" in read_content(tree["etc/passwd"])
    assert "usr/bin/vi" not in tree
    assert "usr/share/doc/busybox/copyright" in tree


def test_every_shipped_image_has_a_recipe_and_a_lock() -> None:
    templates = sorted((PROJECT / "images").glob("rootfs_*.yml.in"))
    texts = " ".join(template.read_text() for template in templates)
    placeholders = {name.lower().replace("_", "-") for name in re.findall(r"(\w+)_TAG", texts)}
    local = set(re.findall(r"extsloader/([a-z0-9-]+):local", texts))

    assert placeholders | local == {path.name for path in RECIPES.iterdir()}
    for recipe in map(load_recipe, RECIPES.iterdir()):
        locked = {deb.package for deb in load_lock(recipe, "amd64")}
        assert locked >= set(recipe.packages)
        assert locked.isdisjoint(recipe.exclude)


@pytest.mark.parametrize("script", sorted(RECIPES.glob("*/files/usr/bin/*")), ids=lambda p: p.name)
def test_shipped_scripts_are_executable_and_parse(script: Path) -> None:
    assert script.stat().st_mode & 0o111 == 0o111
    subprocess.run(["sh", "-n", str(script)], check=True)
