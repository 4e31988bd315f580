"""The build with real packages, mksquashfs and, as root, the real kernel: no network is used."""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from extsloader.image.envelope import parse_envelope
from extsloader.image.schema import parse_manifest
from extsloader.image.signing import load_public_key, signers
from extsloader.image.superblock import reader
from extsloader.image.trailer import find_end, read_trailer
from extsloader.image.verity import verify_tree
from extsloader.imagebuild.image import build_image
from extsloader.imagebuild.main import main

DEFINITION = """\
services:
  - {name: writer, image: "extsloader/demo:local"}
  - {name: reader, image: "extsloader/demo:local", command: [/bin/demo, read]}
"""
RECIPE = """\
packages: [demo]
users: {demo: 1234}
directories: {run/demo: 1234}
config: {command: [/bin/demo], uid: 1234, gid: 1234, net: host}
"""


class Project:
    """A little project with one recipe, whose only package is in the cache already."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cache = root / "cache"
        self.recipe = root / "recipes/demo"
        (self.recipe / "files/etc").mkdir(parents=True)
        (self.recipe / "files/etc/demo.conf").write_text("port 1\n")
        (self.recipe / "recipe.yaml").write_text(RECIPE)
        (root / "pkgs.yml").write_text(DEFINITION)
        (root / "manifests").mkdir()
        (root / "manifests/writer.yaml").write_text("essential: true\n")
        (root / "manifests/reader.yaml").write_text("requires: [writer]\n")
        self._make_package()
        assert main(["keygen", str(root / "keys")]) == 0

    def _make_package(self) -> None:
        tree = self.root / "package"
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "DEBIAN/control").write_text(
            "Package: demo\nVersion: 1:2.0\nArchitecture: all\nMaintainer: x\nDescription: x\n"
        )
        (tree / "DEBIAN/postinst").write_text("#!/bin/sh\nexit 1\n")
        (tree / "DEBIAN/postinst").chmod(0o755)
        (tree / "bin").mkdir()
        (tree / "bin/demo").write_text("#!/bin/sh\n")
        (tree / "bin/demo").chmod(0o755)
        self.cache.joinpath("debs").mkdir(parents=True)
        deb = self.cache / "debs/demo_1%3a2.0_all.deb"
        argv = ["dpkg-deb", "--root-owner-group", "-Znone", "-b", str(tree), str(deb)]
        subprocess.run(argv, check=True, capture_output=True)
        digest = hashlib.sha256(deb.read_bytes()).hexdigest()
        (self.recipe / "packages.lock").write_text(f"demo 1:2.0 all {digest}\n")

    def build(self, out: str = "out", *more: str) -> Path:
        argv = [
            *("build", str(self.root / "pkgs.yml"), "--out", str(self.root / out)),
            *("--key", str(self.root / "keys/extsloader.key"), "--cache", str(self.cache)),
            *("--recipes", str(self.root / "recipes"), "--issued-at", "1700000000"),
            *("--manifests", str(self.root / "manifests"), "--image-version", "1.2.3", *more),
        ]
        assert main(argv) == 0
        return self.root / out / "rootfs-pkgs.img"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_two_builds_give_the_same_bytes(project: Project) -> None:
    first = project.build("one").read_bytes()
    shutil.rmtree(project.cache / "steps")

    assert project.build("two").read_bytes() == first


def test_an_unchanged_build_repeats_no_step_and_a_change_only_what_depends_on_it(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    before = project.build().read_bytes()
    capsys.readouterr()

    project.build()
    assert capsys.readouterr().out.count(" unchanged\n") == 3  # root file system, layout, squashfs

    (project.root / "pkgs.yml").write_text(DEFINITION.replace("read]", "again]"))
    assert project.build().read_bytes() != before
    assert capsys.readouterr().out.count(" unchanged\n") == 1


def test_the_lock_files_say_what_the_image_is_made_of(project: Project) -> None:
    out = project.root / "pkgs.spdx.json"
    options = ["--recipes", str(project.root / "recipes"), "--cache", str(project.cache)]

    assert main(["sbom", str(project.root / "pkgs.yml"), "-o", str(out), *options]) == 0

    names = {package["name"] for package in json.loads(out.read_bytes())["packages"]}
    assert names == {"pkgs", "extsloader/demo:local", "demo"}
    assert main(["sbom", "--recipe", "demo", "-o", str(out), *options]) == 0
    names = {package["name"] for package in json.loads(out.read_bytes())["packages"]}
    assert names == {"extsloader/demo:local", "demo"}


def test_the_image_proves_itself(project: Project) -> None:
    image = project.build()

    with image.open("rb") as file:
        read = reader(file.fileno())
        trailer = read_trailer(read, find_end(read))
        assert trailer
        envelope = parse_envelope(trailer.envelope)
        manifest = parse_manifest(envelope.payload)
        verify_tree(file.fileno(), manifest.image.verity)

    key = load_public_key(str(project.root / "keys/extsloader.pem"))
    assert signers(envelope, [key]) == (key.keyid,)
    content = image.read_bytes()[: manifest.image.size]
    assert hashlib.sha256(content).hexdigest() == manifest.image.digest
    assert (manifest.version, manifest.issued_at) == ("1.2.3", "2023-11-14T22:13:20Z")
    assert [service.requires for service in manifest.services] == [(), ("writer",)]


def test_the_single_steps_give_what_build_gives(project: Project) -> None:
    whole = project.build()
    root, image = project.root, str(project.root / "step.img")
    packages = ["--cache", str(project.cache), "--recipes", str(root / "recipes")]
    definition = str(root / "pkgs.yml")
    for argv in (
        ["tar", definition, "-o", str(root / "step.tar"), *packages],
        ["squash", str(root / "step.tar"), "-o", image],
        ["verity", image],
        [
            *("manifest", image, definition, "-o", str(root / "step.json")),
            *("--manifests", str(root / "manifests")),
            *("--issued-at", "1700000000", "--image-version", "1.2.3"),
        ],
        [
            *("sign", image, "--manifest", str(root / "step.json")),
            *("--key", str(root / "keys/extsloader.key")),
        ],
    ):
        assert main(argv) == 0

    assert Path(image).read_bytes() == whole.read_bytes()


def test_a_manifest_of_another_image_is_not_signed(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    image = project.build()
    other = project.root / "other.json"
    with image.open("rb") as file:
        read = reader(file.fileno())
        trailer = read_trailer(read, find_end(read))
        assert trailer
        manifest = json.loads(parse_envelope(trailer.envelope).payload)
    manifest["image"]["digest"] = "0" * 64
    other.write_text(json.dumps(manifest))

    key = str(project.root / "keys/extsloader.key")
    assert main(["sign", str(image), "--manifest", str(other), "--key", key]) == 1
    assert "the manifest describes another image" in capsys.readouterr().err


def test_mistakes_in_manifests_come_to_light_before_any_work(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    (project.root / "manifests/writer.yaml").write_text("essentail: true\n")
    with pytest.raises(AssertionError):
        project.build()

    assert "mkext: service writer: essentail is unknown" in capsys.readouterr().err
    assert not (project.cache / "steps").exists()


def test_a_damaged_package_is_refused(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    (deb,) = (project.cache / "debs").iterdir()
    deb.write_bytes(deb.read_bytes() + b"x")
    with pytest.raises(AssertionError):
        project.build()

    assert "E_DIGEST: cannot use demo_1%3a2.0_all.deb" in capsys.readouterr().err


@pytest.fixture
def mountpoint(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "extst-mnt"
    directory.mkdir()
    yield directory
    if os.path.ismount(directory):
        subprocess.run(["umount", str(directory)], check=True)


def mount(image: Path, mountpoint: Path) -> None:
    subprocess.run(["mount", "-o", "loop,ro", str(image), str(mountpoint)], check=True)


@pytest.mark.root
def test_the_kernel_mounts_the_signed_image_and_finds_the_bundles(
    project: Project, mountpoint: Path
) -> None:
    mount(project.build(), mountpoint)
    services = mountpoint / "containers/services"

    assert {path.name for path in services.iterdir()} == {"writer", "reader"}
    assert {path.name for path in (services / "writer").iterdir()} == {
        *("config.json", "runtime.json", "lower", "tmp", "rootfs"),
    }
    assert not (services / "reader/lower").exists()
    config = json.loads((services / "reader/config.json").read_text())
    assert config["process"]["args"] == ["/bin/demo", "read"]
    lower = services / "writer/lower"
    assert (lower / "bin").readlink() == Path("usr/bin")
    assert (lower / "usr/bin/demo").stat().st_mode & 0o777 == 0o755
    assert (lower / "run/demo").stat().st_uid == 1234
    assert (lower / "etc/demo.conf").read_text() == "port 1\n"
    assert mountpoint.stat().st_mode & 0o7777 == 0o755
    assert mountpoint.stat().st_uid == 0


@pytest.mark.root
def test_a_directory_becomes_a_signed_image_at_once(tmp_path: Path, mountpoint: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "containers/services/a/rootfs").mkdir(parents=True)
    image = tmp_path / "a.img"
    key = Ed25519PrivateKey.generate()
    service = {"name": "a", "bundle": "containers/services/a"}

    payload = build_image(tree, [service], image, [key])
    first = image.read_bytes()
    build_image(tree, [service], image, [key])

    assert image.read_bytes() == first
    assert parse_manifest(payload).services[0].name == "a"
    mount(image, mountpoint)
    assert (mountpoint / "containers/services/a/rootfs").is_dir()


@pytest.mark.skipif(not shutil.which("veritysetup"), reason="no veritysetup here")
def test_veritysetup_agrees_about_the_hash_tree(project: Project) -> None:
    image = project.build()
    with image.open("rb") as file:
        read = reader(file.fileno())
        trailer = read_trailer(read, find_end(read))
    assert trailer
    verity = parse_manifest(parse_envelope(trailer.envelope).payload).image.verity

    done = subprocess.run(
        [
            *("veritysetup", "verify", str(image), str(image), verity.root_hash),
            f"--hash-offset={verity.hash_offset}",
        ],
        check=False,
    )
    assert done.returncode == 0
