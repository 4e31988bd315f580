"""The daemon's view of a manifest."""

from extsloader.model.manifest import parse_time
from tests.fakes import builders


def test_an_image_is_named_by_its_digest() -> None:
    image = builders.stored(builders.service("a"), digest="f" * 64)
    assert image.digest == "f" * 64


def test_time_is_seconds_since_1970() -> None:
    assert parse_time("1970-01-01T00:01:00Z") == 60
    assert parse_time("2038-01-19T03:14:08Z") == 2**31
