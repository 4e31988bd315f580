"""Images that others made: by umoci, through skopeo's archives, and from a registry."""

import json
import socket
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import yaml

from extsloader.imagebuild.main import main
from extsloader.imagebuild.oci.layers import flatten, unpack_layers
from extsloader.imagebuild.oci.layout import write_image
from extsloader.imagebuild.oci.references import Places, get_image, pull_images
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
    tree = flatten(unpack_layers(stored.layout, stored.layers, places.cache / "plain"))
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


UPPER = pack(
    file("etc/.wh.conf"),
    directory("var"),
    file("var/.wh..wh..opq"),
    file("var/new"),
    hard_link("bin/third", "bin/svc"),
    file("dir"),
    directory("file"),
    file("file/inside"),
)
LOWER = pack(
    file("var/old"),
    directory("dir"),
    file("dir/inside"),
    file("file"),
    file("setuid", mode=0o4755),
)


def test_layers_come_out_as_umoci_unpacks_them(
    tmp_path: Path, layout: Path, places: Places
) -> None:
    image = f"{layout}:{NAME.replace('/', '-')}"  # umoci takes no slash in a name
    run("skopeo", "--insecure-policy", "copy", f"oci:{layout}:{NAME}", f"oci:{image}")
    for layer in (LOWER, UPPER):
        (tmp_path / "layer.tar").write_bytes(layer)
        run("umoci", "raw", "add-layer", "--image", image, tmp_path / "layer.tar")
    run("umoci", "unpack", "--rootless", "--image", image, tmp_path / "bundle")
    stored = get_image(f"oci:{image}", places)
    ours = flatten(unpack_layers(stored.layout, stored.layers, places.cache / "plain"))

    root = tmp_path / "bundle/rootfs"
    theirs = {path.relative_to(root).as_posix(): path for path in root.rglob("*")}

    assert set(ours) == set(theirs)
    for path, node in ours.items():
        assert node.kind is _kind(theirs[path])
        if node.kind is Kind.FILE:
            assert read_content(node) == theirs[path].read_bytes()
            assert node.mode == theirs[path].stat().st_mode & 0o7777
            names = sum(other is node for other in ours.values())
            assert names == theirs[path].stat().st_nlink


def _kind(path: Path) -> Kind:
    if path.is_symlink():
        return Kind.LINK
    return Kind.DIRECTORY if path.is_dir() else Kind.FILE


def test_layers_that_skopeo_compressed_otherwise_are_the_same(
    tmp_path: Path, layout: Path, places: Places
) -> None:
    other = f"oci:{tmp_path}/zstd:a"
    options = ["--dest-compress", "--dest-compress-format", "zstd"]
    run("skopeo", "--insecure-policy", "copy", f"dir:{_as_directory(tmp_path, layout)}", other,
        *options)  # fmt: skip

    stored = get_image(other, places)

    assert stored.layers[0].blob.media_type.endswith("zstd")
    assert files(places, other) == files(places, f"oci:{layout}")


def _as_directory(tmp_path: Path, layout: Path) -> Path:
    place = tmp_path / "plain"
    run("skopeo", "--insecure-policy", "copy", "--dest-decompress", f"oci:{layout}:{NAME}",
        f"dir:{place}")  # fmt: skip
    return place


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


def test_an_index_is_pinned_for_all_architectures(
    tmp_path: Path, layout: Path, registry: str
) -> None:
    (tmp_path / "other.tar").write_bytes(pack(file("etc/arm64")))
    write_image(layout, "other:1", tmp_path / "other.tar", {}, "arm64")
    both = (layout / "index.json").read_bytes()
    digest = f"sha256:{sha256(both).hexdigest()}"
    (layout / "blobs" / digest.replace(":", "/")).write_bytes(both)
    kind = "application/vnd.oci.image.index.v1+json"
    entry = {"mediaType": kind, "digest": digest, "size": len(both)}
    index = {"schemaVersion": 2, "manifests": [entry]}
    (layout / "index.json").write_text(json.dumps(index))
    run("skopeo", "--insecure-policy", "copy", "--all", "--dest-tls-verify=false",
        f"oci:{layout}", f"docker://{registry}/{NAME}")  # fmt: skip

    found = {}
    for architecture in ("amd64", "arm64"):
        places = Places(cache=tmp_path / "cache", registry=registry, insecure=True,
                        architecture=architecture)  # fmt: skip
        assert pull_images([NAME], places, {}, update=True) == {NAME: digest}
        found[architecture] = files(places, f"{NAME}@{digest}")

    assert found["amd64"]["etc/conf"] == b"a=1\n"
    assert found["arm64"] == {"etc/arm64": b"x"}


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
