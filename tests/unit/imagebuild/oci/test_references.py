from pathlib import Path

import pytest

from extsloader.imagebuild.oci.layout import write_image
from extsloader.imagebuild.oci.references import (
    Places,
    format_locks,
    get_image,
    get_images,
    parse_locks,
)
from extsloader.model.errors import ImageRefusedError, SettingsError
from extsloader.model.reasons import Code
from tests.fakes.layers import file, pack

DIGEST = "sha256:" + "a" * 64


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    tar = tmp_path / "rootfs.tar"
    tar.write_bytes(pack(file("a")))
    write_image(tmp_path / "images", "lfedge/eve-a:1", tar, {}, "amd64")
    return tmp_path / "images"


@pytest.fixture
def places(tmp_path: Path, layout: Path) -> Places:
    return Places(cache=tmp_path / "cache", layouts=(layout,))


def test_a_name_is_found_in_a_local_layout(places: Places) -> None:
    assert len(get_image("lfedge/eve-a:1", places).layers) == 1


def test_a_layout_can_be_named_itself(places: Places, layout: Path) -> None:
    named = get_image(f"oci:{layout}:lfedge/eve-a:1", places)

    assert named == get_image("lfedge/eve-a:1", places) == get_image(f"oci:{layout}", places)
    with pytest.raises(ImageRefusedError, match=r"b:2 expected, lfedge/eve-a:1 got"):
        get_image(f"oci:{layout}:b:2", places)


def test_an_image_that_is_not_the_locked_one_is_refused(places: Places) -> None:
    found = get_image("lfedge/eve-a:1", places).digest

    assert get_image("lfedge/eve-a:1", places, found).digest == found
    with pytest.raises(ImageRefusedError, match=f"{DIGEST} is locked, {found} got") as caught:
        get_image("lfedge/eve-a:1", places, DIGEST)
    assert caught.value.problem.code is Code.DIGEST


def test_a_reference_can_have_its_digest_itself(places: Places, layout: Path) -> None:
    found = get_image("lfedge/eve-a:1", places).digest

    assert get_image(f"lfedge/eve-a:1@{found}", places).digest == found
    assert get_image(f"oci:{layout}@{found}", places).digest == found
    for locked in ("", found):
        with pytest.raises(ImageRefusedError, match=f"{DIGEST} is locked, {found} got"):
            get_image(f"lfedge/eve-a:1@{DIGEST}", places, locked)


def test_all_missing_images_are_named_at_once(places: Places, tmp_path: Path) -> None:
    wanted = [f"oci-archive:{tmp_path}/one.tar", f"docker-archive:{tmp_path}/two.tar"]

    with pytest.raises(SettingsError) as caught:
        get_images([*wanted, "lfedge/eve-a:1"], places, {})

    text = "\n".join(caught.value.problems)
    assert "one.tar" in text
    assert "two.tar" in text
    assert "eve-a" not in text


def test_a_lock_file_reads_back_as_it_was_written() -> None:
    locks = {"b:1": DIGEST, "a:2": "sha512:" + "b" * 128}

    assert parse_locks(format_locks(locks), "images.lock") == locks


def test_wrong_lines_of_a_lock_file_are_all_named() -> None:
    with pytest.raises(SettingsError) as caught:
        parse_locks(f"# comment\n\na:1 {DIGEST}\na:2\nb sha256:00\n", "images.lock")

    assert caught.value.problems == (
        "images.lock:4: expected a reference and a digest",
        "images.lock:5: expected a reference and a digest",
    )
