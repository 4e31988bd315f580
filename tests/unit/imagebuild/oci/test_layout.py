import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from extsloader.imagebuild.oci import layout as module
from extsloader.imagebuild.oci.layout import (
    Blob,
    blob_path,
    find_digest,
    list_names,
    load_stored,
    write_image,
)
from extsloader.model.errors import ImageRefusedError
from extsloader.model.reasons import Code
from tests.fakes.layers import file, pack

CONFIG = {"Cmd": ["/bin/a"], "Labels": {"org.mobyproject.config": '{"pid": "host"}'}}


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    path = tmp_path / "rootfs.tar"
    path.write_bytes(pack(file("a")))
    return path


@pytest.fixture
def layout(tmp_path: Path, tar: Path) -> Path:
    write_image(tmp_path / "images", "a:1", tar, CONFIG, "amd64")
    return tmp_path / "images"


def put(layout: Path, document: dict[str, Any]) -> dict[str, Any]:
    raw = json.dumps(document).encode()
    digest = sha256(raw).hexdigest()
    (layout / "blobs/sha256" / digest).write_bytes(raw)
    return {"digest": f"sha256:{digest}", "size": len(raw)}


def set_index(layout: Path, *entries: dict[str, Any]) -> None:
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))


def entries(layout: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((layout / "index.json").read_text())["manifests"]
    return found


def test_an_image_reads_back_as_it_was_written(layout: Path) -> None:
    digest = find_digest(layout, "a:1")
    assert digest is not None
    stored = load_stored(layout, digest, "amd64")

    assert stored.config.args == ("/bin/a",)
    assert stored.config.label.pid == "host"
    assert len(stored.layers) == 1
    assert list_names(layout) == ["a:1"]


def test_the_same_image_is_the_same_bytes_and_a_name_is_given_once(
    layout: Path, tar: Path, tmp_path: Path
) -> None:
    again = write_image(tmp_path / "other", "a:1", tar, CONFIG, "amd64")
    write_image(layout, "b:1", tar, CONFIG, "amd64")
    write_image(layout, "a:1", tar, {}, "amd64")

    assert list_names(layout) == ["a:1", "b:1"]
    assert find_digest(layout, "b:1") == again
    assert find_digest(layout, "a:1") != again
    assert find_digest(layout, "c:1") is None


def test_the_only_image_needs_no_name(layout: Path, tar: Path) -> None:
    assert find_digest(layout, "") == find_digest(layout, "a:1")
    write_image(layout, "b:1", tar, {}, "amd64")
    assert find_digest(layout, "") is None


def test_of_several_architectures_the_right_one_is_taken(layout: Path) -> None:
    (own,) = entries(layout)
    other = own | {
        "platform": {"architecture": "arm64", "os": "linux"},
        "digest": "sha256:" + "0" * 64,
    }
    index = put(layout, {"schemaVersion": 2, "manifests": [other, own]})
    kind = {"mediaType": "application/vnd.oci.image.index.v1+json"}
    set_index(layout, index | kind)

    assert load_stored(layout, index["digest"], "amd64").config.args == ("/bin/a",)
    with pytest.raises(ImageRefusedError, match="for riscv64 expected, for arm64, amd64 got"):
        load_stored(layout, index["digest"], "riscv64")


def test_a_changed_blob_is_found(layout: Path) -> None:
    digest = find_digest(layout, "a:1")
    assert digest is not None
    blob_path(layout, Blob(digest=digest, size=0)).write_text("{}")

    with pytest.raises(ImageRefusedError) as caught:
        load_stored(layout, digest, "amd64")
    assert caught.value.problem.code is Code.DIGEST


def test_an_index_that_names_itself_ends(layout: Path) -> None:
    inner = {"mediaType": "application/vnd.oci.image.index.v1+json"}
    platform = {"platform": {"architecture": "amd64"}}
    entry = entries(layout)[0]
    for _ in range(module.MAX_DEPTH + 1):
        entry = put(layout, {"manifests": [entry | platform]}) | inner
    set_index(layout, entry)

    with pytest.raises(ImageRefusedError, match="nested deeper"):
        load_stored(layout, entry["digest"], "amd64")


WRONG: dict[str, dict[str, Any]] = {
    "no digest": {"size": 1},
    "a path": {"digest": "sha256:../../../etc/passwd", "size": 1},
    "short": {"digest": "sha256:00", "size": 1},
    "unknown hash": {"digest": "md5:" + "0" * 32, "size": 1},
    "no size": {"digest": "sha256:" + "0" * 64},
    "negative size": {"digest": "sha256:" + "0" * 64, "size": -1},
}


@pytest.mark.parametrize("entry", WRONG.values(), ids=WRONG.keys())
def test_wrong_descriptors_are_refused(layout: Path, entry: dict[str, Any]) -> None:
    set_index(layout, entry)

    with pytest.raises(ImageRefusedError) as caught:
        find_digest(layout, "")
    assert caught.value.problem.code is Code.LAYOUT


MISSHAPEN: dict[str, dict[str, Any]] = {
    "manifests a number": {"manifests": 5},
    "manifest a text": {"manifests": ["x"]},
    "layers a number": {"layers": 5},
    "layer a number": {"layers": [1]},
    "no configuration": {"layers": []},
    "configuration a list": {"layers": [], "config": [1]},
    "media type a list": {"layers": [], "mediaType": [1]},
    "annotations a list": {"manifests": [{"digest": "sha256:" + "0" * 64, "annotations": [1]}]},
}


@pytest.mark.parametrize("document", MISSHAPEN.values(), ids=MISSHAPEN.keys())
def test_documents_of_another_shape_are_refused(layout: Path, document: dict[str, Any]) -> None:
    entry = put(layout, document)
    set_index(layout, entry)

    with pytest.raises(ImageRefusedError) as caught:
        load_stored(layout, entry["digest"], "amd64")
    assert caught.value.problem.code is Code.LAYOUT


@pytest.mark.parametrize("rootfs", [[1], {"diff_ids": 5}, {"diff_ids": ["../x"]}])
def test_configurations_of_another_shape_are_refused(layout: Path, rootfs: object) -> None:
    config = put(layout, {"architecture": "amd64", "rootfs": rootfs})
    entry = put(layout, {"layers": [], "config": config})
    set_index(layout, entry)

    with pytest.raises(ImageRefusedError, match="rootfs"):
        load_stored(layout, entry["digest"], "amd64")


def test_a_size_that_is_not_the_blobs_is_refused(layout: Path) -> None:
    (entry,) = entries(layout)
    set_index(layout, entry | {"size": entry["size"] + 1})

    with pytest.raises(ImageRefusedError) as caught:
        load_stored(layout, entry["digest"], "amd64")
    assert caught.value.problem.code is Code.SIZE


def test_an_image_for_another_architecture_is_refused(layout: Path) -> None:
    digest = find_digest(layout, "a:1")
    assert digest is not None

    with pytest.raises(ImageRefusedError, match="for arm64 expected, for amd64 got") as caught:
        load_stored(layout, digest, "arm64")
    assert caught.value.problem.code is Code.INCOMPATIBLE


@pytest.mark.parametrize(
    ("known", "name"),
    [
        ("registry.test/lfedge/eve-a:1", "lfedge/eve-a:1"),
        ("localhost/lfedge/eve-a:1", "lfedge/eve-a:1"),
        ("registry.test:5000/library/alpine:latest", "alpine"),
        ("library/alpine:3", "alpine:3"),
    ],
)
def test_a_name_is_found_with_its_registry(
    tmp_path: Path, tar: Path, known: str, name: str
) -> None:
    layout = tmp_path / "images"
    wanted = write_image(layout, known, tar, {}, "amd64")
    write_image(layout, "other/eve-a:1", tar, CONFIG, "amd64")

    assert find_digest(layout, name) == wanted
    assert find_digest(layout, f"elsewhere.test/{name}") is None


def test_the_exact_name_comes_before_a_similar_one(tmp_path: Path, tar: Path) -> None:
    write_image(tmp_path / "images", "a.test/x:1", tar, {}, "amd64")
    exact = write_image(tmp_path / "images", "x:1", tar, CONFIG, "amd64")

    assert find_digest(tmp_path / "images", "x:1") == exact


def test_images_without_a_name_stay_in_a_layout_that_one_is_added_to(
    layout: Path, tar: Path
) -> None:
    (entry,) = entries(layout)
    unnamed = {key: value for key, value in entry.items() if key != "annotations"}
    set_index(layout, unnamed | {"urls": ["kept"]})

    write_image(layout, "b:1", tar, CONFIG, "amd64")

    assert entries(layout)[0] == unnamed | {"urls": ["kept"]}
    assert list_names(layout) == ["b:1"]


def test_large_or_broken_json_is_refused(layout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (layout / "index.json").write_text("[1]")
    with pytest.raises(ImageRefusedError, match="JSON: input should be an object"):
        find_digest(layout, "")
    (layout / "index.json").write_text("[" * 100_000)
    with pytest.raises(ImageRefusedError, match="JSON: invalid json"):
        find_digest(layout, "")
    monkeypatch.setattr(module, "MAX_JSON", 10)
    with pytest.raises(ImageRefusedError, match="larger than 10 bytes"):
        find_digest(layout, "")
