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


def test_large_or_broken_json_is_refused(layout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (layout / "index.json").write_text("[1]")
    with pytest.raises(ImageRefusedError, match="expected a JSON object"):
        find_digest(layout, "")
    (layout / "index.json").write_text("[" * 100_000)
    with pytest.raises(ImageRefusedError, match="expected JSON"):
        find_digest(layout, "")
    monkeypatch.setattr(module, "MAX_JSON", 10)
    with pytest.raises(ImageRefusedError, match="larger than 10 bytes"):
        find_digest(layout, "")
