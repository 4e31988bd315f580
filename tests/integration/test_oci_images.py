"""Images that others made: by umoci, through skopeo's archives, and from a registry."""

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from extsloader.imagebuild.main import main
from extsloader.imagebuild.oci.layers import flatten, unpack_layer
from extsloader.imagebuild.oci.layout import write_image
from extsloader.imagebuild.oci.references import Places, get_image
from extsloader.imagebuild.tree import Kind, read_content, read_tar
from extsloader.model.errors import ImageRefusedError
from tests.fakes.layers import directory, file, hard_link, link, pack

NAME = "lfedge/eve-test:1"
LAYER = pack(
    directory("bin"),
    file("bin/svc", b"#!/bin/sh\n", mode=0o755),
    hard_link("bin/again", "bin/svc"),
    link("bin/link", "svc"),
    file("etc/conf", b"a=1\n"),
)


def run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    (tmp_path / "rootfs.tar").write_bytes(LAYER)
    config = {"Cmd": ["/bin/svc"], "Labels": {"org.mobyproject.config": '{"readonly": true}'}}
    write_image(tmp_path / "images", NAME, tmp_path / "rootfs.tar", config, "amd64")
    return tmp_path / "images"


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(cache=tmp_path / "cache")


def files(places: Places, reference: str, locked: str = "") -> dict[str, bytes]:
    stored = get_image(reference, places, locked)
    tars = [unpack_layer(stored.layout, layer, places.cache / "plain") for layer in stored.layers]
    tree = flatten(tars)
    return {path: read_content(node) for path, node in tree.items() if node.kind is Kind.FILE}


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_archives_hold_the_same_image(
    tmp_path: Path, layout: Path, places: Places, kind: str
) -> None:
    run("skopeo", "--insecure-policy", "copy", f"oci:{layout}:{NAME}", f"{kind}:{tmp_path}/a:x:1")

    found = files(
        places, f"{kind}:{tmp_path}/a:x:1" if kind == "oci-archive" else f"{kind}:{tmp_path}/a"
    )

    assert found == files(places, f"oci:{layout}")
    assert get_image(f"oci:{layout}", places).config.label.readonly


def test_what_umoci_packs_and_unpacks_is_what_we_read(tmp_path: Path, places: Places) -> None:
    images = tmp_path / "made"
    run("umoci", "init", "--layout", images)
    run("umoci", "new", "--image", f"{images}:a")
    bundle = tmp_path / "bundle"
    run("umoci", "unpack", "--rootless", "--image", f"{images}:a", bundle)
    (bundle / "rootfs/etc").mkdir()
    (bundle / "rootfs/etc/old").write_text("old")
    (bundle / "rootfs/etc/kept").write_text("kept")
    run("umoci", "repack", "--image", f"{images}:a", "--refresh-bundle", bundle)
    (bundle / "rootfs/etc/old").unlink()
    (bundle / "rootfs/etc/new").write_text("new")
    run("umoci", "repack", "--image", f"{images}:a", bundle)

    assert len(get_image(f"oci:{images}:a", places).layers) == 2
    assert files(places, f"oci:{images}:a") == {"etc/kept": b"kept", "etc/new": b"new"}


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """A registry of its own on the loopback interface; a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    settings = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}},
        "http": {"addr": host},
    }
    (tmp_path / "registry.yml").write_text(yaml.safe_dump(settings))
    server = subprocess.Popen(
        ["docker-registry", "serve", tmp_path / "registry.yml"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    with server:
        assert server.stderr
        for line in server.stderr:
            if b"listening on" in line:
                break
        yield host
        server.kill()


def test_an_image_comes_from_a_registry_and_is_pinned(
    tmp_path: Path, layout: Path, registry: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    target = f"docker://{registry}/{NAME}"
    push = ["skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false"]
    run(*push, f"oci:{layout}:{NAME}", target)
    (tmp_path / "images.lock").write_text("")
    options = ["--registry", registry, "--insecure-registry", "--images-lock", "images.lock"]

    assert main(["pull", NAME, "--update", *options]) == 0

    name, digest = capsys.readouterr().out.split()
    assert (name, digest) == (NAME, get_image(f"oci:{layout}", Places(cache=tmp_path)).digest)
    assert f"{NAME} {digest}\n" in (tmp_path / "images.lock").read_text()

    # What is locked and in the cache needs no registry; another image of that name is refused.
    places = Places(cache=tmp_path / ".cache/images", registry=registry, insecure=True)
    (tmp_path / "other.tar").write_bytes(pack(file("other")))
    write_image(layout, NAME, tmp_path / "other.tar", {}, "amd64")
    run(*push, f"oci:{layout}:{NAME}", target)
    assert files(places, NAME, digest)["etc/conf"] == b"a=1\n"
    with pytest.raises(ImageRefusedError, match="is locked"):
        get_image(NAME, Places(cache=tmp_path, layouts=(layout,)), digest)


def test_a_definition_is_laid_out_with_images_of_a_layout(
    tmp_path: Path, layout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    definition = {"services": [{"name": "svc", "image": NAME}]}
    (tmp_path / "pkgs.yml").write_text(yaml.safe_dump(definition))

    assert main(["tar", "pkgs.yml", "-o", "out.tar", "--images", str(layout)]) == 0

    tree = read_tar(tmp_path / "out.tar")
    bundle = "containers/services/svc"
    assert read_content(tree[f"{bundle}/rootfs/bin/svc"]) == b"#!/bin/sh\n"
    config = json.loads(read_content(tree[f"{bundle}/config.json"]))
    assert config["process"]["args"] == ["/bin/svc"]


def test_a_missing_image_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    definition = {"services": [{"name": "svc", "image": f"oci-archive:{tmp_path}/none"}]}
    (tmp_path / "pkgs.yml").write_text(yaml.safe_dump(definition))

    assert main(["tar", "pkgs.yml", "-o", "out.tar"]) == 1

    said = capsys.readouterr().err
    assert "cannot get the image oci-archive:" in said
    assert "--images" in said
    assert not (tmp_path / "out.tar").exists()
