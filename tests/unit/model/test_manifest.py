"""The daemon's view of a manifest."""

from tests.fakes import builders


def test_an_image_is_named_by_its_digest() -> None:
    image = builders.stored(builders.service("a"), digest="f" * 64)
    assert image.digest == "f" * 64
